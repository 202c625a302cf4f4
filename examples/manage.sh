# The author: keys, once, and a signed package.
quadriga keygen acme --no-password
quadriga pack ./hello --sign acme.key

# The operator: what is installed does nothing until it is enabled.
quadriga install hello.js-0.1.0.qx --key acme.pub
quadriga enable hello.js
quadriga list
quadriga call hello.js greet '"Ada"'

# What was done is on record, and the record shows if it was changed.
quadriga disable hello.js
quadriga uninstall hello.js
quadriga audit --verify

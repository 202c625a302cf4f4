# The author: keys, once, and a signed package.
quadriga keygen acme --no-password
quadriga pack ./hello --sign acme.key

# The operator: what is installed does nothing until it is enabled.
quadriga install hello.js-0.1.0.qx --key acme.pub
quadriga enable hello.js
quadriga list
quadriga call hello.js greet '"Ada"'

# Who needs whom, the settings that hold, and a copy of all of it to go back to.
quadriga deps
quadriga config hello.js
quadriga backup backups --keep 7
quadriga restore backups/* --home copy
quadriga list --home copy

# A host runs what is enabled, and the same commands change what runs.
quadriga run &
until quadriga health 2> health.log; do sleep 0.2; done
quadriga call hello.js greet '"Ada"'
quadriga disable hello.js
quadriga uninstall hello.js

# What was done is on record, and the record shows if it was changed.
quadriga audit --verify
kill $! && wait $!

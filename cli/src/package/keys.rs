use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use quadriga::package::{PublicKey, SecretKey};
use serde_json::json;

use super::args::KeygenArgs;
use crate::failure::Advice;
use crate::output::{Output, harmless};

/// Most bytes of a file with a key, a signature or a password.
const LARGEST: u64 = 64 << 10;

/// Makes a pair of keys.
pub(crate) fn keygen(args: &KeygenArgs, output: Output) -> Result<ExitCode> {
    let with = |end: &str| {
        let mut path = args.name.as_os_str().to_owned();
        path.push(end);
        PathBuf::from(path)
    };
    let (secret, public) = (with(".key"), with(".pub"));
    for path in [&secret, &public] {
        if fs::symlink_metadata(path).is_ok() {
            let hint = "a lost key cannot be made again: keys are never written over";
            return Err(Advice::new(format!("{} is there already", path.display()), hint).into());
        }
    }
    let password = match (args.no_password, &args.password_file) {
        (true, _) => None,
        (false, Some(file)) => Some(password_of(file)?),
        (false, None) => Some(new_password()?),
    };
    let key = SecretKey::generate()?;
    write(&secret, &key.to_text(password.as_deref())?, false, true)?;
    write(&public, &key.public().to_file(), false, false)?;
    let key = key.public();
    if output.json {
        output.value(&json!({
            "key": key.id(),
            "public_key": key.to_string(),
            "public_file": public,
            "secret_file": secret,
            "encrypted": password.is_some(),
        }))?;
    } else {
        let text = format!(
            "The key {} verifies with {}\n{key}\nand signs with {}, which is for nobody else.",
            key.id(),
            public.display(),
            secret.display()
        );
        output.text(&harmless(&text))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a secret key, and asks for its password if it has one.
pub(super) fn secret(file: &Path, password_file: Option<&Path>) -> Result<SecretKey> {
    let text = text(file, "secret key")?;
    if !SecretKey::is_encrypted(&text)? {
        return Ok(SecretKey::parse(&text, None)?);
    }
    let password = match password_file {
        Some(file) => password_of(file)?,
        None => ask(&format!("Password of {}: ", file.display()))?,
    };
    Ok(SecretKey::parse(&text, Some(&password))?)
}

/// The public key itself, or the one in a file.
pub(crate) fn public(key: &str) -> Result<PublicKey> {
    match key.parse() {
        Ok(key) => Ok(key),
        Err(error) if Path::new(key).exists() => {
            let _ = error;
            Ok(text(Path::new(key), "public key")?.parse()?)
        }
        Err(_) => {
            let hint = "--key takes a public key, or the path of a file that holds one";
            Err(Advice::new(format!("{} is no key, and no file", harmless(key)), hint).into())
        }
    }
}

/// The text of a small file.
pub(super) fn text(file: &Path, what: &str) -> Result<String> {
    let mut text = String::new();
    File::open(file)
        .and_then(|opened| opened.take(LARGEST).read_to_string(&mut text))
        .map_err(|error| unreadable(file, what, &error))?;
    Ok(text)
}

pub(super) fn unreadable(file: &Path, what: &str, error: &io::Error) -> Advice {
    let message = format!("the {what} cannot be read from {}: {error}", file.display());
    Advice::new(message, "name the file that holds it")
}

/// Writes a new file, or a file anew. A secret one is its owner's alone.
pub(super) fn write(path: &Path, text: &str, over: bool, secret: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if over {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(if secret { 0o600 } else { 0o644 });
    }
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let message = format!("{} cannot be written: {error}", path.display());
        Advice::new(message, "choose another place for it").into()
    })
}

/// The first line of a file.
fn password_of(file: &Path) -> Result<String> {
    let text = text(file, "password")?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => {
            let message = format!("the first line of {} is empty", file.display());
            Err(Advice::new(message, "the password is the first line of its file").into())
        }
    }
}

fn new_password() -> Result<String> {
    let password = ask("New password: ")?;
    if password.is_empty() {
        let hint = "type one, or say with --no-password that there is none";
        return Err(Advice::new("the password is empty", hint).into());
    }
    if ask("The same once more: ")? != password {
        return Err(Advice::new("the two passwords differ", "type the same one twice").into());
    }
    Ok(password)
}

/// Asks the person at the terminal.
fn ask(prompt: &str) -> Result<String> {
    let nobody =
        || Advice::new("a password is needed, and nobody is there to ask", "give it with --password-file");
    if !io::stdin().is_terminal() {
        return Err(nobody().into());
    }
    Ok(rpassword::prompt_password(harmless(prompt)).map_err(|_| nobody())?)
}

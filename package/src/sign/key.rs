use std::fmt;
use std::str::FromStr;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroize as _;

use super::signature::{LONGEST, is_comment};
use super::{ALGORITHM, COMMENT, Signature, SignatureError, decode, encode, key_name};

/// Names scrypt, which turns a password into what a secret key is hidden by.
const SCRYPT: &[u8; 2] = b"Sc";
/// Names the checksum of a secret key.
const BLAKE2B: &[u8; 2] = b"B2";
/// What a key of ours costs to open: 128 MiB, 2^17 rounds. The file says it, as minisign's own do.
const WORK: Work = Work { ops: 1 << 22, memory: 128 << 20 };
/// What minisign's own keys cost: 1 GiB.
const MOST_LOG_N: u32 = 20;
const MOST_P: u64 = 16;

/// The key that verifies. Its text form is the second line of a `.pub` file.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: [u8; 8],
    key: [u8; 32],
}

/// The key that signs.
pub struct SecretKey {
    id: [u8; 8],
    /// The seed, and the public key again.
    key: [u8; 64],
}

/// Parameters as libsodium counts them.
#[derive(Clone, Copy)]
struct Work {
    ops: u64,
    memory: u64,
}

impl PublicKey {
    /// The key's name.
    pub fn id(&self) -> String {
        key_name(&self.id)
    }

    /// The file that minisign keeps it in.
    pub fn to_file(&self) -> String {
        format!("{COMMENT}minisign public key {}\n{self}\n", self.id())
    }

    /// Verifies a signature of a file with this BLAKE2b-512 digest.
    pub(crate) fn verify(&self, signature: &Signature, digest: &[u8; 64]) -> Result<(), SignatureError> {
        if signature.key != self.id {
            return Err(SignatureError::OtherKey { signature: signature.key_id(), key: self.id() });
        }
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        key.verify(digest, &signature.of_file).map_err(|_| SignatureError::WrongSignature)?;
        let commented = Signature::with_comment(&signature.of_file, &signature.comment);
        key.verify(&commented, &signature.of_comment).map_err(|_| SignatureError::WrongComment)
    }
}

impl FromStr for PublicKey {
    type Err = SignatureError;

    /// Takes the key's line alone, or the whole file.
    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let what = "public key";
        let malformed = |why| SignatureError::Malformed { what, why };
        let mut lines = text.trim().lines();
        let first = lines.next().unwrap_or_default();
        let line = match first.starts_with(COMMENT) {
            true => lines.next().ok_or(malformed("it has too few lines"))?,
            false => first,
        };
        if lines.next().is_some() {
            return Err(malformed("it has too many lines"));
        }
        let bytes: [u8; 42] = decode(what, line)?;
        if bytes[..2] != *ALGORITHM {
            return Err(malformed("its algorithm is not known"));
        }
        let (mut id, mut key) = ([0; 8], [0; 32]);
        id.copy_from_slice(&bytes[2..10]);
        key.copy_from_slice(&bytes[10..]);
        Ok(Self { id, key })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&[&ALGORITHM[..], &self.id, &self.key].concat()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl SecretKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<Self, SignatureError> {
        let (mut id, mut key) = ([0; 8], [0; 64]);
        random(&mut id)?;
        random(&mut key[..32])?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&key[..32]);
        let pair = pair.map_err(|_| SignatureError::NoRandomness)?;
        key[32..].copy_from_slice(pair.public_key().as_ref());
        Ok(Self { id, key })
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(&self.key[32..]);
        PublicKey { id: self.id, key }
    }

    /// Whether the text of a secret key needs a password to be read.
    ///
    /// # Errors
    /// If it is no secret key.
    pub fn is_encrypted(text: &str) -> Result<bool, SignatureError> {
        Ok(Fields::parse(text)?.kdf == *SCRYPT)
    }

    /// Reads the text of a secret key. That of a key with a password takes some time.
    ///
    /// # Errors
    /// If it is no secret key, or the password does not fit.
    pub fn parse(text: &str, password: Option<&str>) -> Result<Self, SignatureError> {
        let mut fields = Fields::parse(text)?;
        let encrypted = fields.kdf == *SCRYPT;
        if encrypted {
            fields.work.hide(
                &mut fields.hidden,
                &fields.salt,
                password.ok_or(SignatureError::PasswordNeeded)?,
            )?;
        }
        let (mut id, mut key) = ([0; 8], [0; 64]);
        id.copy_from_slice(&fields.hidden[..8]);
        key.copy_from_slice(&fields.hidden[8..72]);
        let checked = Self { id, key };
        let malformed = |why| SignatureError::Malformed { what: "secret key", why };
        // minisign leaves the checksum out where there is no password.
        if encrypted && fields.hidden[72..] != checked.checksum() {
            return Err(SignatureError::WrongPassword);
        }
        checked.pair().map(|_| checked).ok_or(malformed("its two halves do not fit"))
    }

    /// The text of the key, hidden by a password if there is one; whoever has the text of a key
    /// without one can sign.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn to_text(&self, password: Option<&str>) -> Result<String, SignatureError> {
        let mut hidden = [0; 104];
        hidden[..8].copy_from_slice(&self.id);
        hidden[8..72].copy_from_slice(&self.key);
        let (mut salt, mut kdf, mut work) = ([0; 32], [0; 2], Work { ops: 0, memory: 0 });
        if let Some(password) = password {
            (kdf, work) = (*SCRYPT, WORK);
            hidden[72..].copy_from_slice(&self.checksum());
            random(&mut salt)?;
            work.hide(&mut hidden, &salt, password)?;
        }
        let numbers = [work.ops.to_le_bytes(), work.memory.to_le_bytes()].concat();
        let bytes = [&ALGORITHM[..], &kdf, BLAKE2B, &salt, &numbers, &hidden].concat();
        // minisign says so of keys without a password too.
        Ok(format!("{COMMENT}minisign encrypted secret key\n{}\n", encode(&bytes)))
    }

    /// Signs a file with this BLAKE2b-512 digest, and a comment.
    pub(crate) fn sign(&self, digest: &[u8; 64], comment: &str) -> Result<Signature, SignatureError> {
        if !is_comment(comment) {
            return Err(SignatureError::BadComment(LONGEST));
        }
        // A key that was read or made has two halves that fit.
        let pair = self.pair().ok_or(SignatureError::WrongSignature)?;
        let signed = |bytes: &[u8]| {
            let mut signature = [0; 64];
            signature.copy_from_slice(pair.sign(bytes).as_ref());
            signature
        };
        let of_file = signed(digest);
        let of_comment = signed(&Signature::with_comment(&of_file, comment));
        Ok(Signature { key: self.id, of_file, comment: comment.to_owned(), of_comment })
    }

    fn pair(&self) -> Option<Ed25519KeyPair> {
        Ed25519KeyPair::from_seed_and_public_key(&self.key[..32], &self.key[32..]).ok()
    }

    fn checksum(&self) -> [u8; 32] {
        let hash = Blake2b::<U32>::new().chain_update(ALGORITHM).chain_update(self.id).chain_update(self.key);
        hash.finalize().into()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", key_name(&self.id))
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// What stands in the file of a secret key.
struct Fields {
    kdf: [u8; 2],
    salt: [u8; 32],
    work: Work,
    /// Key id, key and checksum.
    hidden: [u8; 104],
}

impl Fields {
    fn parse(text: &str) -> Result<Self, SignatureError> {
        let what = "secret key";
        let malformed = |why| SignatureError::Malformed { what, why };
        let mut lines = text.trim().lines();
        let (Some(comment), Some(line), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(malformed("it has not exactly two lines"));
        };
        if !comment.starts_with(COMMENT) {
            return Err(malformed("its first line is no untrusted comment"));
        }
        let bytes: [u8; 158] = decode(what, line)?;
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let mut fields = Self {
            kdf: [bytes[2], bytes[3]],
            salt: [0; 32],
            work: Work { ops: number(38), memory: number(46) },
            hidden: [0; 104],
        };
        fields.salt.copy_from_slice(&bytes[6..38]);
        fields.hidden.copy_from_slice(&bytes[54..]);
        let known = bytes[..2] == *ALGORITHM && bytes[4..6] == *BLAKE2B;
        if !known || !(fields.kdf == *SCRYPT || fields.kdf == [0; 2]) {
            return Err(malformed("its algorithm is not known"));
        }
        Ok(fields)
    }
}

impl Work {
    /// scrypt's parameters, from what libsodium derives them from.
    fn parameters(self) -> Result<scrypt::Params, SignatureError> {
        const R: u64 = 8;
        let ops = self.ops.max(1 << 15);
        let most = if ops < self.memory / 32 { ops / (R * 4) } else { self.memory / (R * 128) };
        let log_n = (1..63).find(|log| 1_u64 << log > most / 2).unwrap_or(63);
        let p = match ops < self.memory / 32 {
            true => 1,
            false => ((ops / 4) >> log_n).min(0x3fff_ffff) / R,
        };
        let sensible = log_n <= MOST_LOG_N && p <= MOST_P;
        let (true, Ok(p)) = (sensible, u32::try_from(p.max(1))) else {
            return Err(SignatureError::TooCostly);
        };
        scrypt::Params::new(log_n as u8, R as u32, p).map_err(|_| SignatureError::TooCostly)
    }

    /// Hides what is plain, and shows what is hidden.
    fn hide(self, bytes: &mut [u8; 104], salt: &[u8], password: &str) -> Result<(), SignatureError> {
        let mut stream = [0; 104];
        scrypt::scrypt(password.as_bytes(), salt, &self.parameters()?, &mut stream)
            .map_err(|_| SignatureError::TooCostly)?;
        for (byte, mask) in bytes.iter_mut().zip(stream) {
            *byte ^= mask;
        }
        Ok(())
    }
}

fn random(bytes: &mut [u8]) -> Result<(), SignatureError> {
    SystemRandom::new().fill(bytes).map_err(|_| SignatureError::NoRandomness)
}

//! With keys and signatures that minisign's own tool (0.11) made. That the tool verifies ours is
//! tested with the command.

use blake2::{Blake2b512, Digest as _};

use super::{PublicKey, SecretKey, Signature, SignatureError};

const PUBLIC: &str = "untrusted comment: minisign public key F3155999A7DCC50\n\
    RWRQzH2amVUxD9vC96Uz0xk/1lQ0EXr1XDoKfRnVQWN+pwDOD86FLAwa\n";
const SECRET: &str = "untrusted comment: minisign encrypted secret key\n\
    RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAUMx9mplVMQ/J2siGduNTUVyLwOta\
    IoL1A7QexMtRi3cpTrN6bCZHT9vC96Uz0xk/1lQ0EXr1XDoKfRnVQWN+pwDOD86FLAwaAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
    AAAAAAA=\n";
const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
    RURQzH2amVUxDz/Z6jvMrzeH4Q8LNCo/YJIAtZ4OE1yl8pcSC9z+o2KKrt8NSinXcNWb/gEGFqTgGewdJF6l9qfq0tbLt0VCng4=\n\
    trusted comment: made by the tool\n\
    X1/TeC7gVhu9HUhS2mGs9ggferXrXIqzc7+NglKvYQB5otjuZ76gTYB3ysVyXkJpHOzaW+o+7YhNPngyt/vuAw==\n";
const LEGACY: &str = "untrusted comment: signature from minisign secret key\n\
    RWRQzH2amVUxD6LaRfpg/Q+SM8lPMyBn95Z/LPvgDWy0c8c13bdgPsTCOgTE531a6hkz2WmslB8cS42vKYDjRZ1DgR0U90e4awg=\n\
    trusted comment: old\n\
    31WGezso46VHBPdTzrvPIL2M+EWNHjf37RAlLUBt8qZ5N4VrgpOLma2kepBknLyyAjbOMte0+ZIGToma69YhBQ==\n";
const OTHER_PUBLIC: &str = "RWTY+pVoLzDZEnPUVEdqBKdbDgDqDkszDGeA+FK4Q+zDK4EaMzpuQ7Y0";
/// Its password is `horse`.
const ENCRYPTED: &str = "untrusted comment: minisign encrypted secret key\n\
    RWRTY0IyAkJRjYZ9cSi/Qdlbhb8ylWvSa8KOoL/IBFJPGQueK2UAAAACAAAAAAAAAEAAAAAAoCA9N6YOCunvHPzlWeBxVHTKPyyjKUDr\
    NkZhgP3M4T6aaFlXE8jRUvRGJgGJcY5+a8xf6TyU0fJ5/eJ/sB7JTHZx95thI9JGzIomfp9ookPciz/108POWenN5Vx4WxBZLOVqrt32\
    1Vw=\n";

fn digest(bytes: &[u8]) -> [u8; 64] {
    Blake2b512::digest(bytes).into()
}

#[test]
fn what_the_tool_signed_is_verified() {
    let key: PublicKey = PUBLIC.parse().unwrap();
    assert_eq!(key.id(), "0F3155999A7DCC50");
    let signature: Signature = SIGNATURE.parse().unwrap();
    assert_eq!(signature.trusted_comment(), "made by the tool");
    key.verify(&signature, &digest(b"four horses")).unwrap();
    assert_eq!(key.verify(&signature, &digest(b"for horses")), Err(SignatureError::WrongSignature));
    let changed = SIGNATURE.replace("made by", "from by").parse().unwrap();
    assert_eq!(key.verify(&changed, &digest(b"four horses")), Err(SignatureError::WrongComment));
    let other: PublicKey = OTHER_PUBLIC.parse().unwrap();
    let error = other.verify(&signature, &digest(b"four horses")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the signature was made with the key 0F3155999A7DCC50, and not with 12D9302F6895FAD8"
    );
    assert_eq!(LEGACY.parse::<Signature>(), Err(SignatureError::Legacy));
}

#[test]
fn no_byte_of_a_signature_can_be_changed() {
    let key: PublicKey = PUBLIC.parse().unwrap();
    let digest = digest(b"four horses");
    let signed = SIGNATURE.find('\n').unwrap() + 1;
    for at in signed..SIGNATURE.len() - 1 {
        let mut bytes = SIGNATURE.as_bytes().to_vec();
        // Another character of Base64 and of text alike; the last ones of a line have spare bits.
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        let accepted = changed.parse::<Signature>().is_ok_and(|found| key.verify(&found, &digest).is_ok());
        assert!(!accepted, "{changed}");
    }
}

#[test]
fn keys_of_the_tool_and_of_ours_are_read() {
    let key = SecretKey::parse(SECRET, None).unwrap();
    assert_eq!(key.public(), PUBLIC.parse().unwrap());
    assert_eq!(
        (key.to_text(None).unwrap(), key.public().to_file()),
        (SECRET.to_owned(), { PUBLIC.replace("key F3", "key 0F3") })
    );
    let made = SecretKey::generate().unwrap();
    let again = SecretKey::parse(&made.to_text(None).unwrap(), Some("not needed")).unwrap();
    assert_eq!(again.public(), made.public());
    let signature = again.sign(&digest(b"x"), "a comment").unwrap();
    let read: Signature = signature.to_string().parse().unwrap();
    assert_eq!(read, signature);
    made.public().verify(&read, &digest(b"x")).unwrap();
    assert_eq!(key.sign(&digest(b"x"), "two\nlines").unwrap_err(), SignatureError::BadComment(1024));
}

#[test]
fn a_password_opens_a_key_and_no_other_does() {
    let made = SecretKey::generate().unwrap();
    let text = made.to_text(Some("horse")).unwrap();
    assert!(SecretKey::is_encrypted(&text).unwrap());
    assert_eq!(SecretKey::parse(&text, Some("horse")).unwrap().public(), made.public());
    assert_eq!(SecretKey::parse(&text, Some("house")).unwrap_err(), SignatureError::WrongPassword);
    assert_eq!(SecretKey::parse(&text, None).unwrap_err(), SignatureError::PasswordNeeded);
}

/// Such a key costs a gibibyte of memory.
#[test]
fn slow_a_key_of_the_tool_with_a_password_is_opened() {
    let key = SecretKey::parse(ENCRYPTED, Some("horse")).unwrap();
    assert_eq!(key.public(), OTHER_PUBLIC.parse().unwrap());
}

#[test]
fn what_is_no_key_or_signature_is_refused() {
    type Parse = fn(&str) -> Result<(), SignatureError>;
    let parses: [(&str, Parse); 3] = [
        ("public", |text| text.parse::<PublicKey>().map(drop)),
        ("secret", |text| SecretKey::parse(text, Some("")).map(drop)),
        ("signature", |text| text.parse::<Signature>().map(drop)),
    ];
    let costly = {
        use base64::Engine as _;
        let line = ENCRYPTED.lines().nth(1).unwrap();
        let mut bytes = base64::engine::general_purpose::STANDARD.decode(line).unwrap();
        bytes[38..54].fill(0xff);
        format!("untrusted comment: x\n{}\n", super::encode(&bytes))
    };
    for (kind, text, code) in [
        ("public", "", "malformed_signature"),
        ("public", "untrusted comment: x", "malformed_signature"),
        ("public", "untrusted comment: x\nRWQ=\nmore", "malformed_signature"),
        ("public", "RWRQzH2amVUxD9vC96Uz0xk", "malformed_signature"),
        ("public", "ÄÖÜ", "malformed_signature"),
        ("public", "RURQzH2amVUxD9vC96Uz0xk/1lQ0EXr1XDoKfRnVQWN+pwDOD86FLAwa", "malformed_signature"),
        ("secret", "", "malformed_signature"),
        ("secret", PUBLIC, "malformed_signature"),
        ("secret", &SECRET.replace("RWQAAEIy", "RWQAAEIz"), "malformed_signature"),
        // The two halves of the key no longer fit.
        ("secret", &SECRET.replace("J2siGduNT", "J2siGduNU"), "malformed_signature"),
        ("secret", &costly, "too_costly"),
        ("signature", "", "malformed_signature"),
        ("signature", PUBLIC, "malformed_signature"),
        ("signature", &SIGNATURE.replace("trusted comment: made", "comment: made"), "malformed_signature"),
        ("signature", &SIGNATURE.replace("RURQ", "RUVQ"), "malformed_signature"),
        ("signature", &format!("{SIGNATURE}more"), "malformed_signature"),
        ("signature", &SIGNATURE.replace("made", "ma\x1b[1m"), "bad_comment"),
        ("signature", &SIGNATURE.replace("made", &"m".repeat(2000)), "bad_comment"),
    ] {
        let (_, parse) = parses.iter().find(|(name, _)| *name == kind).unwrap();
        assert_eq!(parse(text).unwrap_err().code(), code, "{kind} {text}");
    }
}

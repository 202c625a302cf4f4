use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{arguments, from_arguments, from_bytes, to_bytes};
use crate::{Timestamp, Value};

fn encoded<T: Serialize + ?Sized>(item: &T) -> Value {
    Value::from_bytes(&to_bytes(item).unwrap()).unwrap()
}

fn refused<T: Serialize + ?Sized>(item: &T) -> String {
    to_bytes(item).unwrap_err().to_string()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    name: String,
    body: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Sized(u32),
    Named { at: i8 },
    Pair(bool, char),
}

#[test]
fn bytes_travel_as_bytes() {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    assert_eq!(encoded(&vec![1_u8, 2, 255]), bytes(&[1, 2, 255]));
    assert_eq!(encoded(&Vec::<u8>::new()), bytes(&[]));
    assert_eq!(encoded(&[7_u8][..]), bytes(&[7]));
    assert_eq!(encoded(&Some(vec![1_u8])), bytes(&[1]));
    assert_eq!(encoded(&vec![vec![1_u8]]), Value::List(vec![bytes(&[1])]));
    assert_eq!(encoded(&serde_bytes::Bytes::new(&[3])), bytes(&[3]));
    assert_eq!(encoded(&Value::Bytes(vec![3])), bytes(&[3]));
    let list = Value::List(vec![Value::Int(1)]);
    assert_eq!(encoded(&vec![1_u16]), list);
    assert_eq!(encoded(&HashSet::from([1_u8])), list);
    assert_eq!(encoded(&Vec::<Value>::new()), Value::List(vec![]));

    let out = Value::Bytes(vec![1, 2]).to_bytes().unwrap();
    assert_eq!(from_bytes::<Vec<u8>>(&out).unwrap(), [1, 2]);
    assert_eq!(from_bytes::<&[u8]>(&out).unwrap(), [1, 2]);
    assert_eq!(from_bytes::<serde_bytes::ByteBuf>(&out).unwrap(), [1, 2]);
    assert_eq!(from_bytes::<Vec<u8>>(&[0x91, 0x05]).unwrap(), [5]);
}

#[test]
fn structs_and_enums_read_back() {
    let kinds = [Kind::Plain, Kind::Sized(7), Kind::Named { at: -1 }, Kind::Pair(true, 'ß')];
    for kind in kinds {
        let record = Record { name: "n".into(), body: vec![1], kind };
        let out = to_bytes(&record).unwrap();
        assert_eq!(from_bytes::<Record>(&out).unwrap(), record);
    }
    let map = Value::Map(vec![(text("at"), Value::Int(1))]);
    assert_eq!(encoded(&Kind::Named { at: 1 }), Value::Map(vec![(text("Named"), map)]));
    assert_eq!(encoded(&BTreeMap::from([(1, "x")])), Value::Map(vec![(Value::Int(1), text("x"))]));
}

#[test]
fn scalars_take_their_place() {
    let now = Timestamp::new(1_700_000_000, 5).unwrap();
    assert_eq!(encoded(&now), Value::Timestamp(now));
    assert_eq!(encoded(&vec![Value::Timestamp(now)]), Value::List(vec![Value::Timestamp(now)]));
    assert_eq!(encoded(&()), Value::Nil);
    assert_eq!(encoded(&1.5_f32), Value::Float(1.5));
    assert_eq!(encoded(&u64::MAX), Value::UInt(u64::MAX));
    assert_eq!(encoded(&5_u128), Value::Int(5));
    assert_eq!(encoded(&i128::from(i64::MIN)), Value::Int(i64::MIN));
    assert_eq!(encoded(&(0..3).filter(|n| n % 2 == 0).collect::<Vec<_>>()), encoded(&[0, 2]));
}

#[test]
fn what_has_no_place_is_refused_by_its_path() {
    assert_eq!(refused(&u128::MAX), format!("{} does not fit 64 bits", u128::MAX));
    let nested = BTreeMap::from([("sizes", vec![1, i128::MIN])]);
    assert_eq!(refused(&nested), format!("at sizes[1]: {} does not fit 64 bits", i128::MIN));
    let deep = (0..129).fold(Value::Nil, |inner, _| Value::List(vec![inner]));
    assert!(refused(&deep).ends_with("the value is nested deeper than 128 levels"));
    let deepest = (0..128).fold(Value::Nil, |inner, _| Value::List(vec![inner]));
    assert_eq!(encoded(&deepest), deepest);
    assert_eq!(from_bytes::<Value>(&deepest.to_bytes().unwrap()).unwrap(), deepest);
    let deeper = [&[0x91], &deepest.to_bytes().unwrap()[..]].concat();
    assert!(from_bytes::<Value>(&deeper).is_err());
}

#[test]
fn lists_of_unknown_length_read_back() {
    struct Odd;
    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((0..5).filter(|n| n % 2 == 1))
        }
    }
    assert_eq!(encoded(&Odd), Value::List(vec![Value::Int(1), Value::Int(3)]));
}

#[test]
fn what_does_not_fit_is_refused_by_its_path() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only decoded")]
    struct Page {
        title: String,
        sizes: Vec<u8>,
        kind: Option<Kind>,
    }
    let page = |title: Value, sizes: Value, kind: Value| {
        let fields = [("title", title), ("sizes", sizes), ("kind", kind)];
        Value::Map(fields.map(|(name, value)| (text(name), value)).to_vec())
    };
    let named = Value::Map(vec![(text("Named"), Value::Map(vec![(text("at"), Value::Int(300))]))]);
    let cases = [
        (page(Value::Int(1), Value::Nil, Value::Nil), "at title: expected a string, found the integer 1"),
        (page(text("t"), text("s"), Value::Nil), "at sizes: expected a sequence, found text"),
        (
            page(text("t"), Value::List(vec![Value::Int(1), Value::Int(256)]), Value::Nil),
            "at sizes[1]: expected u8, found the integer 256",
        ),
        (
            page(text("t"), Value::Bytes(vec![1]), named),
            "at kind.Named.at: expected i8, found the integer 300",
        ),
        (
            page(text("t"), Value::Bytes(vec![1]), Value::Bool(true)),
            "at kind: expected enum Kind, found true",
        ),
        (Value::Timestamp(Timestamp::new(1, 0).unwrap()), "expected struct Page, found a timestamp"),
        (Value::Float(0.5), "expected struct Page, found the float 0.5"),
        (Value::Nil, "expected struct Page, found nil"),
    ];
    for (value, expected) in cases {
        assert_eq!(value.to::<Page>().unwrap_err().to_string(), expected, "{value:?}");
    }
    assert_eq!(
        Value::Int(1).to::<Timestamp>().unwrap_err().to_string(),
        "expected a timestamp, found the integer 1"
    );
}

#[test]
fn nothing_is_left_over() {
    let three = Value::List(vec![Value::Int(1); 3]);
    assert_eq!(three.to::<(i64, i64, i64)>().unwrap(), (1, 1, 1));
    assert_eq!(three.to::<(i64, i64)>().unwrap_err().to_string(), "1 of 3 items have no place here");
    assert!(three.to::<(i64, i64, i64, i64)>().is_err());
    assert_eq!(from_bytes::<i64>(&[1, 2]).unwrap_err().to_string(), "1 bytes follow the value");
    // What a struct does not know is skipped whole.
    #[derive(Debug, PartialEq, Deserialize)]
    struct One {
        one: i64,
    }
    let more = Value::Map(vec![(text("more"), three), (text("one"), Value::Int(1))]);
    assert_eq!(more.to::<One>().unwrap(), One { one: 1 });
}

#[test]
fn arguments_are_a_list_that_is_no_level() {
    let deepest = (0..128).fold(Value::Nil, |inner, _| Value::List(vec![inner]));
    let bytes = arguments(&(&deepest,)).unwrap();
    assert_eq!(from_arguments::<(Value,)>(&bytes).unwrap().0, deepest);
    assert!(arguments(&((&deepest,),)).is_err());
    assert_eq!(arguments(&()).unwrap(), [0x90]);
    from_arguments::<()>(&[0x90]).unwrap();
    assert!(arguments(&5).unwrap_err().to_string().starts_with("they are no list"));
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    assert!(from_bytes::<Value>(b"\xa2\xff\xfe").is_err());
    assert!(from_bytes::<Vec<u8>>(b"\xa2\xff\xfe").is_err());
    assert!(from_bytes::<Value>(b"\xd4\x05\x00").is_err());
}

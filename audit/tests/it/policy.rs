//! Policy files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use join_audit::{Key, Policy, verify_portable};

use crate::keys::{Witness, log_key};

/// The keys and the cosigned checkpoint of the test vectors, as the proof of the entry "xyz".
const POLICY: &str = "
# a comment
\tlog join.example/log-a+93bd71f6+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4  https://log.example/
witness w1 witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X https://witness.example/
quorum w1
";
const CHECKPOINT: &str = "join.example/log-a
3
XvAysx/0be7hHuQoHGP0PNmAtXgLJj26UX/f4lhCajI=

— join.example/log-a k71x9rKeoRVmpowoDDT9fZd8mdbecYmNMwt/R2zq+o2R1jZu9mTRM4ut8YFnbXxan7l1qIbB5uFPw/GlgUbM/YWBzwM=
— witness.example/w1 IDJKvgAAAABlU/EAyyehtOzVoAxx9mQ0NULYb+3WLtLZHSMPfq45PkzwKxZP+Pw959YowAbsJ2ItVixdqV9KBTZLeNonPhA0zu8SAA==
";

#[test]
fn the_cosigned_checkpoint_of_the_test_vectors_meets_its_policy() {
    let sibling = join_audit::merkle::root(&[join_audit::merkle::leaf(b"a"), join_audit::merkle::leaf(b"")]);
    let proof = format!("c2sp.org/tlog-proof@v1\nindex 2\n{}\n\n{CHECKPOINT}", BASE64.encode(sibling));
    let proven = verify_portable(&proof, b"xyz", &POLICY.parse().unwrap()).unwrap();
    assert_eq!((proven.index, proven.checkpoint.size, proven.checkpoint.origin.as_str()), (2, 3, "join.example/log-a"));
}

#[test]
fn the_policy_that_the_manual_shows_is_one() {
    let manual = include_str!("../../../docs/operating.md");
    let shown = manual.split("```").find(|block| block.starts_with("\n# auditors.policy")).unwrap();
    shown.parse::<Policy>().unwrap();
    let alone: String = shown.lines().filter(|line| line.starts_with("log ")).chain(["\nquorum none\n"]).collect();
    alone.parse::<Policy>().unwrap();
}

fn ml_dsa_key() -> String {
    let key = [vec![6], vec![9; 1312]].concat();
    let identity = [b"ml-dsa.example/w\n".as_slice(), &key].concat();
    let id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &identity);
    format!("ml-dsa.example/w+{}+{}", hex::encode(&id.as_ref()[..4]), BASE64.encode(key))
}

#[test]
fn witnesses_of_a_kind_not_known_yet_are_read_and_never_count() {
    let policy = |rule| POLICY.replace("quorum w1", &format!("witness m {}\n{rule}", ml_dsa_key())).parse::<Policy>();
    let proof = format!("c2sp.org/tlog-proof@v1\nindex 2\n\n{CHECKPOINT}");
    let said = |rule| verify_portable(&proof, b"xyz", &policy(rule).unwrap()).unwrap_err().what;
    assert!(said("quorum m").contains("quorum m is not met"));
    assert!(said("group g any m w1\nquorum g").contains("does not lead"), "the witness that is known suffices");
}

#[test]
fn mistakes_are_named_with_their_line() {
    let (log, w1, w2) = (log_key(), Witness::new(1).key(), Witness::new(2).key());
    let cases = [
        ("".to_owned(), "line 1 of the policy: there is no quorum"),
        (format!("log {log}\n"), "there is no quorum"),
        ("quorum none\nquorum none".to_owned(), "line 2 of the policy: there is a quorum already"),
        ("quorum w".to_owned(), "`w` is not defined above"),
        (format!("quorum w\nwitness w {w1}"), "line 1 of the policy: `w` is not defined above"),
        (format!("log {w1}\nquorum none"), "is the key of a witness, not of a log"),
        (format!("witness w {log}\nquorum w"), "is the key of a log, not of a witness"),
        (format!("log {log}\nlog {log}\nquorum none"), "line 2 of the policy: this log's key stands there already"),
        (format!("witness w {w1}\nwitness v {w1}\nquorum w"), "this witness's key stands there already"),
        (format!("witness w {w1}\nwitness w {w2}\nquorum w"), "the name `w` is taken"),
        (format!("witness none {w1}\nquorum none"), "the name `none` is taken"),
        (format!("witness w {w1}\ngroup g 2 w\nquorum g"), "2 of 1 members cannot be asked for"),
        (format!("witness w {w1}\ngroup g 0 w\nquorum g"), "0 of 1 members cannot be asked for"),
        ("group g any\nquorum g".to_owned(), "1 of 0 members"),
        (format!("witness w {w1}\ngroup g some w\nquorum g"), "`some` should be a number, any or all"),
        (format!("witness w {w1}\ngroup g any w none\nquorum g"), "`none` is not defined above"),
        (format!("witness w {w1}\ngroup g any g w\nquorum g"), "`g` is not defined above"),
        (format!("witness w {w1}\ngroup g any w\ngroup h any w\nquorum g"), "`w` may be a member only once"),
        (format!("witness w {w1}\ngroup g 2 w w\nquorum g"), "`w` may be a member only once"),
        ("log\nquorum none".to_owned(), "too few or too many words"),
        ("witness w nonsense\nquorum none".to_owned(), "`nonsense` is not a verifier key"),
        ("trust me\nquorum none".to_owned(), "`trust` is none of log, witness, group and quorum"),
        ("quorum none\r\n".to_owned(), "control character"),
    ];
    for (policy, expected) in cases {
        let error = policy.parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains(expected), "{policy}\n{error}");
    }
}

#[test]
fn a_policy_may_be_large() {
    let mut policy = String::new();
    let mut names = Vec::new();
    for number in 1..=64 {
        policy += &format!("witness w{number} {}\ngroup g{number} any w{number}\n", Witness::new(number).key());
        names.push(format!("g{number}"));
    }
    policy += &format!("group all-of-them 33 {}\nquorum all-of-them\n", names.join(" "));
    policy.parse::<Policy>().unwrap();
}

#[test]
fn what_is_not_quite_a_key_is_refused() {
    let text = log_key().to_string();
    assert_eq!(log_key().name(), "join.example/log-a");
    for wrong in [
        text.replace("93bd", "93be"),
        text.replace("log-a", "log-b"),
        text.replace("93bd71f6", "93BD71F6"),
        text.replace("SVTG4", "SVT"),
        text.replace("+AQOh", "+AgOh"),
        "name+00000000".to_owned(),
        "++".to_owned(),
        String::new(),
    ] {
        assert!(wrong.parse::<Key>().is_err(), "{wrong}");
    }
}

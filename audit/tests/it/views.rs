//! Claimed views are compared with what follows from the events.

use join_audit::{Fault, Finding};
use serde_json::{Value, json};

use crate::export::Export;
use crate::history::History;

/// The one finding after tampering with the views.
fn found(tamper: impl FnOnce(&mut Vec<Value>)) -> Finding {
    let mut export = Export::of(&History::of(50));
    tamper(export.views.as_mut().unwrap());
    let mut findings = export.audited().findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

fn view<'a>(views: &'a mut [Value], kind: &str) -> &'a mut Value {
    views.iter_mut().find(|view| view["stream"].as_str().unwrap().starts_with(kind)).unwrap()
}

#[test]
fn a_rewritten_row() {
    let finding = found(|views| view(views, "token/")["state"]["spec"]["recovery"]["limit"] = json!(99));
    assert_eq!((finding.fault, finding.place.version), (Fault::WrongView, Some(3)));
    let place = "token/00000000-0000-0000-0000-000000001000 version 3: ";
    assert_eq!(
        finding.to_string(),
        format!("{place}the claimed view does not follow from the events at .spec.recovery.limit")
    );

    let secret = found(|views| view(views, "token/")["state"]["secret"] = json!("another hash"));
    assert!(!secret.to_string().contains("another hash"), "contents are not repeated");
    found(|views| view(views, "lock/")["state"]["live"] = json!(false));
    found(|views| view(views, "bot/")["state"] = Value::Null);
    found(|views| drop(view(views, "bot/")["state"].as_object_mut().unwrap().remove("live")));
}

#[test]
fn a_row_that_another_version_wrote() {
    // One that is older did not know of bindings yet: that there is none is what follows.
    let mut older = Export::of(&History::of(50));
    let views = older.views.as_mut().unwrap();
    assert!(view(views, "token/")["state"].as_object_mut().unwrap().remove("binding").is_some());
    assert_eq!(older.faults(), []);

    let newer = found(|views| view(views, "bot/")["state"]["spec"]["extra"] = json!(1));
    assert_eq!(newer.fault, Fault::Newer);
    assert!(newer.to_string().ends_with("the claimed view says more than is known here at .spec.extra"), "{newer}");
}

#[test]
fn a_row_of_another_version() {
    let finding = found(|views| view(views, "token/")["version"] = json!(2));
    assert!(finding.to_string().ends_with("the stream is at 3"), "{finding}");
}

#[test]
fn a_missing_row() {
    let finding = found(|views| views.retain(|view| view["stream"] != "bot/00000000-0000-0000-0000-000000001001"));
    assert_eq!((finding.fault, finding.place.version), (Fault::MissingView, None));
    assert_eq!(finding.place.stream.as_deref(), Some("bot/00000000-0000-0000-0000-000000001001"));
    assert_eq!(found(Vec::clear).fault, Fault::MissingView);
}

#[test]
fn a_row_of_nothing_and_a_row_twice() {
    let finding = found(|views| {
        let mut invented = views[0].clone();
        invented["stream"] = json!("bot/00000000-0000-0000-0000-00000000ffff");
        views.push(invented);
    });
    assert!(finding.what.contains("a stream that has no events"), "{finding}");
    let finding = found(|views| views.push(views[0].clone()));
    assert!(finding.what.contains("claimed twice"), "{finding}");
}

#[test]
fn a_row_that_cannot_be_read() {
    let finding = found(|views| views.push(json!({ "stream": "bot/x" })));
    assert_eq!(finding.fault, Fault::Unreadable);
}

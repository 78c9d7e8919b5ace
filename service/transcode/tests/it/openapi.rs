//! The OpenAPI document.

use std::{collections::BTreeSet, env, fs, path::Path};

use join_proto::DESCRIPTORS;
use join_transcode::{openapi, roles};
use serde_json::{Value, json};

fn document() -> Value {
    openapi(&DESCRIPTORS, "Join authority", "v1").unwrap()
}

/// Every value in the document, with its key.
fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            visit(key, value);
            walk(value, visit);
        }),
        Value::Array(elements) => elements.iter().for_each(|value| walk(value, visit)),
        _ => {}
    }
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(verb, operation)| (path.as_str(), verb.as_str(), operation))
    })
}

#[test]
fn the_committed_document_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if env::var_os("UPDATE").is_some() {
        fs::write(&file, format!("{:#}\n", document())).unwrap();
    }
    let committed: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert!(
        committed == document(),
        "docs/openapi.json is outdated: run `UPDATE=1 cargo test -p join-transcode openapi`"
    );
}

#[test]
fn every_call_is_described_with_its_role() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, verb, operation) in operations(&document) {
        let call = format!(
            "/joinauthority.v1.{}/{}",
            operation["tags"][0].as_str().unwrap(),
            operation["operationId"].as_str().unwrap()
        );
        let role = operation["x-role"].as_str().unwrap();
        let free = role == "anyone";
        assert_eq!(operation["security"].as_array().unwrap().contains(&json!({})), free, "{verb} {path}");
        let description = operation["description"].as_str().unwrap();
        assert!(description.contains(if free { "Needs no role." } else { role }), "{verb} {path}: {description}");
        assert!(operation["responses"]["200"]["content"].as_object().is_some_and(|content| !content.is_empty()));
        assert_eq!(operation["responses"]["default"]["$ref"], "#/components/responses/Error");
        assert_eq!(operation.get("requestBody").is_some(), verb == "post" || verb == "put", "{verb} {path}");
        described.insert((call, format!("ROLE_{}", role.to_uppercase())));
    }
    let calls: BTreeSet<_> =
        roles(&DESCRIPTORS).unwrap().into_iter().map(|(path, role)| (path, role.as_str_name().to_owned())).collect();
    assert_eq!(described, calls);
}

#[test]
fn every_path_parameter_is_declared_and_no_name_is_used_twice() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, verb, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()));
        let parameters = operation["parameters"].as_array().unwrap();
        let names: BTreeSet<_> = parameters.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), parameters.len(), "{verb} {path}");
        for parameter in parameters {
            let in_path = path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap()));
            assert_eq!(parameter["in"], if in_path { "path" } else { "query" });
            assert_eq!(parameter["required"], in_path);
            assert!(parameter["schema"]["type"].is_string(), "{verb} {path}: {parameter}");
        }
        assert_eq!(path.matches('{').count(), parameters.iter().filter(|parameter| parameter["in"] == "path").count());
    }
}

#[test]
fn every_reference_resolves_and_every_schema_is_used() {
    let document = document();
    let mut used = BTreeSet::new();
    walk(&document, &mut |key, value| {
        if key == "$ref" {
            let target = value.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(target).is_some_and(Value::is_object), "{target}");
            used.insert(target.to_owned());
        }
    });
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(used.contains(&format!("/components/schemas/{name}")), "{name}");
    }
}

#[test]
fn comments_and_types_come_from_the_proto_files() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["Bot"]["properties"]["metadata"]["$ref"], "#/components/schemas/Metadata");
    assert_eq!(schemas["Trait"]["description"], "Trait is a named list, such as `logins`.");
    let generation = &schemas["BoundKeypairStatus"]["properties"]["generation"];
    assert_eq!(generation["description"], "generation is the number in the newest certificate.");
    assert_eq!((&generation["type"], &generation["format"]), (&json!("integer"), &json!("uint64")));
    assert_eq!(schemas["Metadata"]["properties"]["expires"]["type"], json!(["string", "null"]));
    assert_eq!(schemas["OpenRequest"]["properties"]["public_tls_key"]["contentEncoding"], "base64");
    assert_eq!(schemas["Metadata"]["properties"]["labels"]["additionalProperties"], json!({"type": "string"}));
    let body = &document["paths"]["/v1/bots/{name}"]["put"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["$ref"], "#/components/schemas/Bot");
    let events = &document["paths"]["/v1/events"]["get"];
    assert!(events["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == "follow"));
    assert!(events["responses"]["200"]["content"].get("application/x-ndjson").is_some());
}

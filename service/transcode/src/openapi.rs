//! The OpenAPI document, written from descriptors and the comments of the `.proto` files.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::{
    calls::{self, BadCall, Body, Call},
    json::{STRUCT, TIMESTAMP},
};

/// The OpenAPI 3.1 document of all routes of [`router`](crate::router()).
///
/// Each operation names the role it needs in its description and as `x-role`.
///
/// # Errors
/// [`BadCall`] when a method's option is missing or can't be right.
pub fn openapi(pool: &DescriptorPool, title: &str, version: &str) -> Result<Value, BadCall> {
    let calls = calls::calls(pool)?;
    let mut schemas = BTreeMap::from([("Error".to_owned(), error_schema())]);
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for call in &calls {
        let mut operation = operation(call, &mut schemas);
        if let Some((switch, twin)) = call.streaming_twin(&calls) {
            let description = format!("`true` is the same as `{} {}`.", twin.verb, twin.path);
            if let Value::Array(parameters) = &mut operation["parameters"] {
                parameters.push(parameter("query", switch, json!({ "type": "boolean" }), description));
            }
            let lines = operation_content(twin, &mut schemas);
            merge(&mut operation["responses"]["200"]["content"], lines);
        }
        paths.entry(&call.path).or_default().insert(call.verb.as_str().to_lowercase(), operation);
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": "Every call is offered in gRPC too, under the same names. A field that is not known is refused.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Error": error_response() },
            "securitySchemes": {
                "mutualTLS": {
                    "type": "mutualTLS",
                    "description": "The certificate of an administrator, or of a bot that renews.",
                },
            },
        },
    }))
}

fn operation(call: &Call, schemas: &mut Schemas) -> Value {
    let method = &call.method;
    let role = call.role.as_str_name().trim_start_matches("ROLE_").to_lowercase();
    let needs =
        if call.is_for_anyone() { "Needs no role.".to_owned() } else { format!("Needs at least the role `{role}`.") };
    let description = format!("{} {needs}", comment(&method.parent_file(), method.path()));
    let no_identity_or_one = json!([{}, { "mutualTLS": [] }]);
    let an_identity = json!([{ "mutualTLS": [] }]);
    let parameters: Vec<Value> = call
        .path_fields
        .iter()
        .map(|field| ("path", field))
        .chain(call.query_fields.iter().map(|field| ("query", field)))
        .map(|(place, field)| parameter(place, field.name(), plain_type(field, schemas), field_comment(field)))
        .collect();
    let mut operation = json!({
        "operationId": method.name(),
        "tags": [method.parent_service().name()],
        "description": description.trim_start(),
        "x-role": role,
        "security": if call.is_for_anyone() { no_identity_or_one } else { an_identity },
        "parameters": parameters,
        "responses": {
            "200": { "description": answer_description(call), "content": operation_content(call, schemas) },
            "default": { "$ref": "#/components/responses/Error" },
        },
    });
    let body = match &call.body {
        Body::Nothing => None,
        Body::Request => Some(reference(&method.input(), schemas)),
        Body::Field(field) => Some(plain_type(field, schemas)),
    };
    if let Some(schema) = body {
        let required = matches!(call.body, Body::Field(_));
        operation["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

fn answer_description(call: &Call) -> &'static str {
    if call.method.is_server_streaming() { "One JSON document a line; an error is the last." } else { "The answer." }
}

fn operation_content(call: &Call, schemas: &mut Schemas) -> Value {
    let kind = if call.method.is_server_streaming() { "application/x-ndjson" } else { "application/json" };
    json!({ kind: { "schema": reference(&call.method.output(), schemas) } })
}

fn parameter(place: &str, name: &str, schema: Value, description: String) -> Value {
    described(json!({ "name": name, "in": place, "required": place == "path", "schema": schema }), description)
}

fn described(mut of: Value, description: String) -> Value {
    if !description.is_empty() {
        of["description"] = description.into();
    }
    of
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

type Schemas = BTreeMap<String, Value>;

/// A reference to the message's schema, which is written if it is not there yet.
fn reference(message: &MessageDescriptor, schemas: &mut Schemas) -> Value {
    let name = message.name();
    if !schemas.contains_key(name) {
        schemas.insert(name.to_owned(), Value::Null); // ends the descent where a message contains itself
        let properties: Map<String, Value> =
            message.fields().map(|field| (field.name().to_owned(), property(&field, schemas))).collect();
        let schema = json!({ "type": "object", "properties": properties });
        schemas.insert(name.to_owned(), described(schema, comment(&message.parent_file(), message.path())));
    }
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn property(field: &FieldDescriptor, schemas: &mut Schemas) -> Value {
    let mut schema = plain_type(field, schemas);
    if field.kind().as_message().is_some_and(|kind| kind.full_name() == TIMESTAMP) && !field.is_list() {
        schema["type"] = json!(["string", "null"]);
    }
    described(schema, field_comment(field))
}

fn plain_type(field: &FieldDescriptor, schemas: &mut Schemas) -> Value {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let values = plain_type(&entry.map_entry_value_field(), schemas);
            json!({ "type": "object", "additionalProperties": values })
        }
        kind if field.is_list() => json!({ "type": "array", "items": kind_type(&kind, schemas) }),
        kind => kind_type(&kind, schemas),
    }
}

fn kind_type(kind: &Kind, schemas: &mut Schemas) -> Value {
    match kind {
        Kind::Double => json!({ "type": "number", "format": "double" }),
        Kind::Float => json!({ "type": "number", "format": "float" }),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({ "type": "integer", "format": "int64" }),
        Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "format": "uint32", "minimum": 0 }),
        Kind::Uint64 | Kind::Fixed64 => json!({ "type": "integer", "format": "uint64", "minimum": 0 }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::String => json!({ "type": "string" }),
        Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Kind::Enum(names) => {
            let names: Vec<String> = names.values().map(|value| value.name().to_owned()).collect();
            json!({ "type": "string", "enum": names })
        }
        Kind::Message(message) if message.full_name() == TIMESTAMP => {
            json!({ "type": "string", "format": "date-time" })
        }
        Kind::Message(message) if message.full_name() == STRUCT => json!({ "type": "object" }),
        Kind::Message(message) => reference(message, schemas),
    }
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "description": "Why a call was refused.",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": { "type": "string", "description": "Stable, such as `INVALID_REQUEST` or `LOCKED`." },
                "message": { "type": "string", "description": "For people." },
                "lock_id": { "type": "string", "description": "The lock that is in force." },
                "retry_after": { "type": "integer", "minimum": 0, "description": "Seconds to wait before another try." },
            },
            "additionalProperties": { "type": "string" },
        } },
    })
}

fn error_response() -> Value {
    json!({
        "description": "The call was refused or failed.",
        "headers": { "Retry-After": { "description": "Seconds.", "schema": { "type": "integer", "minimum": 0 } } },
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
    })
}

fn field_comment(field: &FieldDescriptor) -> String {
    comment(&field.parent_message().parent_file(), field.path())
}

/// The comment before a declaration, in one line; empty if there is none.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let locations = file.file_descriptor_proto().source_code_info.iter().flat_map(|info| &info.location);
    let comment = locations.filter(|location| location.path == path).find_map(|at| at.leading_comments.as_deref());
    comment.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

//! The calls of `joinauthority.v1`, with what their option `joinauthority.v1.call` says about them.

use std::{collections::HashMap, sync::Arc};

use http::{Method, uri::PathAndQuery};
use join_proto::v1::{self, Role};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MethodDescriptor, Value};

const PACKAGE: &str = "joinauthority.v1";
const OPTION: &str = "joinauthority.v1.call";

/// A method whose option `joinauthority.v1.call` is missing or can't be right.
#[derive(Debug, thiserror::Error)]
#[error("{method}: {reason}; its option (joinauthority.v1.call) is explained in options.proto")]
pub struct BadCall {
    method: String,
    reason: String,
}

/// The least role that may call each method of `joinauthority.v1`, by gRPC path such as
/// `/joinauthority.v1.Resources/GetBot`.
///
/// Services of other packages (joining, health, reflection) say nothing about roles and are not in the table.
///
/// # Errors
/// [`BadCall`] when a method does not say what it needs, so that a service with such a method does not start.
pub fn roles(pool: &DescriptorPool) -> Result<HashMap<String, Role>, BadCall> {
    Ok(calls(pool)?.iter().map(|call| (call.grpc_path.to_string(), call.role)).collect())
}

/// One method in gRPC and in HTTP.
pub(crate) struct Call {
    pub(crate) method: MethodDescriptor,
    pub(crate) grpc_path: PathAndQuery,
    pub(crate) role: Role,
    pub(crate) verb: Method,
    /// With names in braces, as in the option and in axum's routes.
    pub(crate) path: String,
    pub(crate) path_fields: Vec<FieldDescriptor>,
    /// Empty when the request has a body.
    pub(crate) query_fields: Vec<FieldDescriptor>,
    pub(crate) body: Body,
}

/// What the HTTP body of a request is.
pub(crate) enum Body {
    Nothing,
    Request,
    Field(FieldDescriptor),
}

/// Every call of the package.
pub(crate) fn calls(pool: &DescriptorPool) -> Result<Vec<Arc<Call>>, BadCall> {
    pool.services()
        .filter(|service| service.package_name() == PACKAGE)
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| {
            Call::new(&method).map(Arc::new).map_err(|reason| BadCall { method: method.full_name().to_owned(), reason })
        })
        .collect()
}

impl Call {
    fn new(method: &MethodDescriptor) -> Result<Self, String> {
        let option = option(method)?;
        let role = match option.role() {
            Role::Unspecified => return Err("no role is given".to_owned()),
            role => role,
        };
        if method.is_client_streaming() {
            return Err("a stream of requests has no JSON twin".to_owned());
        }
        let (verb, path) = option
            .http
            .split_once(' ')
            .filter(|(_, path)| path.starts_with('/'))
            .ok_or_else(|| format!("http is `{}`, not like `GET /v1/bots/{{name}}`", option.http))?;
        let verb = match verb {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "DELETE" => Method::DELETE,
            other => return Err(format!("`{other}` is not one of GET, POST, PUT, DELETE")),
        };

        let (path_fields, other_fields): (Vec<_>, Vec<_>) =
            method.input().fields().partition(|field| path.contains(&format!("{{{}}}", field.name())));
        if path_fields.len() != path.matches('{').count() || !path_fields.iter().all(is_text) {
            return Err(format!("a name in braces of `{path}` is not a string of {}", method.input().full_name()));
        }
        let has_body = verb == Method::POST || verb == Method::PUT;
        let body = match (has_body, option.body.as_str()) {
            (false, "") => Body::Nothing,
            (false, _) => return Err(format!("{verb} has no body")),
            (true, "") => Body::Request,
            (true, name) => other_fields
                .iter()
                .find(|field| field.name() == name && is_message(field))
                .map(|field| Body::Field(field.clone()))
                .ok_or_else(|| format!("the body `{name}` is not a message of {}", method.input().full_name()))?,
        };
        let query_fields = if has_body { Vec::new() } else { other_fields };
        if let Some(field) = query_fields.iter().find(|field| is_message(field) || field.is_map()) {
            return Err(format!("`{}` can't be written in a query", field.name()));
        }

        let grpc_path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        Ok(Self {
            grpc_path: grpc_path.parse().expect("names of services and methods are made of URI characters"),
            method: method.clone(),
            role,
            verb,
            path: path.to_owned(),
            path_fields,
            query_fields,
            body,
        })
    }

    pub(crate) fn is_for_anyone(&self) -> bool {
        self.role == Role::Anyone
    }

    /// The call at `PATH:switch` that streams what this one at `PATH` pages through, and its switch: it can also be
    /// had as `PATH?switch=true`.
    pub(crate) fn streaming_twin<'a>(&self, calls: &'a [Arc<Self>]) -> Option<(&'a str, &'a Arc<Self>)> {
        calls.iter().find_map(|other| {
            let switch = other.path.strip_prefix(&self.path)?.strip_prefix(':')?;
            let same_request = other.verb == self.verb && other.method.input() == self.method.input();
            (same_request && other.method.is_server_streaming()).then_some((switch, other))
        })
    }
}

fn option(method: &MethodDescriptor) -> Result<v1::Call, String> {
    let extension =
        method.parent_pool().get_extension_by_name(OPTION).ok_or_else(|| format!("nothing declares {OPTION}"))?;
    let options = method.options();
    match options.get_extension(&extension).as_ref() {
        Value::Message(call) if options.has_extension(&extension) => {
            call.transcode_to().map_err(|error| error.to_string())
        }
        _ => Err("it has none".to_owned()),
    }
}

fn is_text(field: &FieldDescriptor) -> bool {
    field.kind() == Kind::String && !field.is_list()
}

/// A message with members; a Timestamp is written as text.
fn is_message(field: &FieldDescriptor) -> bool {
    field.kind().as_message().is_some_and(|message| message.full_name() != crate::json::TIMESTAMP) && !field.is_map()
}

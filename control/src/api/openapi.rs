//! The OpenAPI 3.1 document, from the list of routes and the types of the answers.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::api::handlers::Error;
use crate::api::routes::{Answer, Route, routes};

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<Error>().to_value();
    let mut paths = Map::new();
    for route in routes() {
        paths.insert(
            route.path.to_owned(),
            json!({ "get": operation(&route, &error, &mut generator) }),
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "weir",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Metrics, health and state of a weir gateway. Everything is read-only. On the Unix socket file \
                            permissions decide; TCP clients show a token where `[api] token_file` is set.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route, error: &Value, generator: &mut SchemaGenerator) -> Value {
    let content = match route.answer {
        Answer::Json(schema) => json!({ "application/json": { "schema": schema(generator).to_value() } }),
        Answer::Text(media_types) => {
            let text = |media_type: &&str| ((*media_type).to_owned(), json!({ "schema": { "type": "string" } }));
            media_types.iter().map(text).collect::<Map<_, _>>().into()
        }
    };
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({ "description": "The answer.", "content": content }),
    );
    for (status, meaning) in route.also {
        responses.insert(
            status.to_string(),
            json!({ "description": meaning, "content": content }),
        );
    }
    let wrong = json!({ "application/json": { "schema": error } });
    let mut refuse = |status: &str, meaning: &str| {
        responses.insert(status.to_owned(), json!({ "description": meaning, "content": wrong }));
    };
    refuse("405", "Another method than GET or HEAD.");
    refuse("413", "The request has a body.");
    refuse(
        "421",
        "Without a token, over TCP: `Host` is neither an address nor `localhost`.",
    );
    if !route.is_open {
        refuse("401", "No token, or the wrong one.");
    }
    if route.parameters.is_some() {
        refuse("400", "A parameter is unknown, or has a value that it cannot have.");
    }
    if matches!(route.answer, Answer::Text(_)) {
        refuse("503", "Too many at once.");
    }
    let mut operation = json!({ "summary": route.summary, "responses": responses });
    if !route.is_open {
        operation["security"] = json!([{ "token": [] }, {}]);
    }
    if let Some(parameters) = route.parameters {
        operation["parameters"] = parameters_of(&parameters(generator).to_value(), generator);
    }
    operation
}

/// The properties of a type, as parameters of a query.
fn parameters_of(reference: &Value, generator: &mut SchemaGenerator) -> Value {
    let name = reference["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
        .unwrap_or_default();
    // It is no part of an answer, so it needs no name of its own.
    let definition = generator.definitions_mut().remove(name).unwrap_or_default();
    let properties = definition["properties"].as_object().cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        // A query has no null: what may be left out is left out.
        if let Some(kinds) = schema["type"].as_array() {
            schema["type"] = kinds[0].clone();
        }
        json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema })
    };
    properties.into_iter().map(parameter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKED_IN: &str = include_str!("../../../docs/openapi.json");

    #[test]
    fn the_file_in_docs_is_what_the_code_says() {
        let file: Value = serde_json::from_str(CHECKED_IN).unwrap();
        assert_eq!(file, document(), "write it anew: weir schema --api > docs/openapi.json");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let references = text
            .split("\"$ref\":\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        let mut seen = 0;
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
            seen += 1;
        }
        assert!(seen > 10, "{seen}");
    }
}

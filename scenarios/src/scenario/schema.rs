//! The JSON schema of scenario files, for editors: made from the types, so that it never says other than they do.

use std::borrow::Cow;

use monosign_protocol::Dialect;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{Act, Do, Scenario, When};
use crate::run::Mode;

/// The schema as a JSON document.
pub fn schema() -> Value {
    // Draft 7 is what the editors' TOML servers understand.
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Scenario>();
    schema.into()
}

impl JsonSchema for Act {
    fn schema_name() -> Cow<'static, str> {
        "Act".into()
    }

    /// Each act, with the keys that say when.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let when = When::json_schema(generator);
        let mut acts = Do::json_schema(generator);
        let variants = acts.get_mut("oneOf").and_then(Value::as_array_mut);
        for act in variants.into_iter().flatten().filter_map(Value::as_object_mut) {
            extend(act, &when);
        }
        acts
    }
}

fn extend(act: &mut Map<String, Value>, when: &Schema) {
    let properties = act.entry("properties").or_insert(json!({}));
    if let (Some(properties), Some(more)) =
        (properties.as_object_mut(), when.get("properties").and_then(Value::as_object))
    {
        properties.extend(more.clone());
    }
    let required = act.entry("required").or_insert(json!([]));
    if let (Some(required), Some(more)) =
        (required.as_array_mut(), when.get("required").and_then(Value::as_array))
    {
        required.extend(more.clone());
    }
}

/// A table whose keys are the signer's own.
pub(super) fn table(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

pub(super) fn modes(_: &mut SchemaGenerator) -> Schema {
    let names = Mode::ALL.map(|mode| mode.to_string());
    json_schema!({ "type": "array", "items": { "type": "string", "enum": names } })
}

pub(super) fn dialects(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": dialect(generator) })
}

pub(super) fn dialect(_: &mut SchemaGenerator) -> Schema {
    let names = Dialect::ALL.map(|dialect| dialect.to_string());
    json_schema!({ "type": "string", "enum": names })
}

pub(super) fn messages(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": super::check::MESSAGES })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let committed: Value = serde_json::from_str(include_str!("../../scenario.schema.json")).unwrap();
        assert_eq!(committed, super::schema(), "write it anew: scenarios schema > scenario.schema.json");
    }

    #[test]
    fn an_act_has_its_own_keys_and_those_of_its_time() {
        let schema = super::schema();
        let acts = schema["definitions"]["Act"]["oneOf"].as_array().unwrap();
        let kill = acts.iter().find(|act| act["properties"]["do"]["const"] == "kill").unwrap();
        let keys: Vec<_> = kill["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["at", "do", "every", "for", "host", "until"]);
        assert_eq!(kill["required"], serde_json::json!(["do", "host", "at"]));
        assert_eq!(kill["additionalProperties"], false);
    }
}

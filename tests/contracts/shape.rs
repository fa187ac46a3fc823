//! Shapes: JSON whose values are types. README.md has what they mean.

use serde_json::Value;

/// The shape of an answer. Objects may have more fields than it names.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    OneOf(Vec<Type>),
    Object(Vec<(String, Shape)>),
    /// A list with elements of this shape. It must have some: an empty list proves nothing about them.
    Each(Box<Shape>),
    /// Any list.
    List,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    String,
    Integer,
    Number,
    Boolean,
    Null,
    DateTime,
    /// Exactly this string.
    Exactly(String),
}

impl Shape {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::of(&serde_json::from_str(text).map_err(|error| format!("the shape is no JSON: {error}"))?)
    }

    fn of(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(types) => types.split('|').map(Type::parse).collect::<Result<_, _>>().map(Self::OneOf),
            Value::Object(fields) => {
                let field = |(name, value): (&String, &Value)| Ok((name.clone(), Self::of(value)?));
                fields.iter().map(field).collect::<Result<_, String>>().map(Self::Object)
            }
            Value::Array(elements) => match &elements[..] {
                [] => Ok(Self::List),
                [element] => Self::of(element).map(|shape| Self::Each(Box::new(shape))),
                _ => Err("a list in a shape has one element, which stands for all of them".to_owned()),
            },
            other => Err(format!("{other} is no type")),
        }
    }

    /// Every difference of a value from this shape, with its path.
    pub(super) fn differences(&self, value: &Value) -> Vec<String> {
        let mut found = vec![];
        self.compare(value, "$", &mut found);
        found
    }

    fn compare(&self, value: &Value, at: &str, found: &mut Vec<String>) {
        match (self, value) {
            (Self::OneOf(types), _) if types.iter().any(|t| t.fits(value)) => {}
            (Self::List, Value::Array(_)) => {}
            (Self::Object(fields), Value::Object(object)) => {
                for (name, shape) in fields {
                    match object.get(name) {
                        Some(value) => shape.compare(value, &format!("{at}.{name}"), found),
                        None => found.push(format!("{at}.{name} is missing")),
                    }
                }
            }
            (Self::Each(_), Value::Array(values)) if values.is_empty() => found.push(format!("{at} is empty")),
            (Self::Each(shape), Value::Array(values)) => {
                values.iter().enumerate().for_each(|(n, value)| shape.compare(value, &format!("{at}[{n}]"), found));
            }
            _ => found.push(format!("{at} is {value}, not {}", self.name())),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::OneOf(types) => types.iter().map(Type::name).collect::<Vec<_>>().join("|"),
            Self::Object(_) => "an object".to_owned(),
            Self::Each(_) | Self::List => "a list".to_owned(),
        }
    }
}

impl Type {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            "null" => Self::Null,
            "date-time" => Self::DateTime,
            _ => match text.strip_prefix('=') {
                Some(exactly) => Self::Exactly(exactly.to_owned()),
                None => return Err(format!("{text:?} is no type")),
            },
        })
    }

    fn fits(&self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Null => value.is_null(),
            Self::DateTime => value.as_str().is_some_and(|text| chrono::DateTime::parse_from_rfc3339(text).is_ok()),
            Self::Exactly(text) => value == text,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::String => "string".to_owned(),
            Self::Integer => "integer".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Boolean => "boolean".to_owned(),
            Self::Null => "null".to_owned(),
            Self::DateTime => "date-time".to_owned(),
            Self::Exactly(text) => format!("{text:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn differences(shape: Value, value: Value) -> Vec<String> {
        Shape::of(&shape).unwrap().differences(&value)
    }

    #[test]
    fn missing_fields_and_wrong_types_are_found_and_extra_fields_are_fine() {
        let shape = json!({ "id": "integer", "name": "string", "os": { "type": "string" } });
        let fine = json!({ "id": 1, "name": "a", "os": { "type": "linux", "more": 1 }, "more": null });
        assert_eq!(differences(shape.clone(), fine), Vec::<String>::new());
        assert_eq!(
            differences(shape.clone(), json!({ "id": "1", "os": {} })),
            ["$.id is \"1\", not integer", "$.name is missing", "$.os.type is missing"]
        );
        assert_eq!(
            differences(shape.clone(), json!({ "id": 1, "name": null, "os": [] })),
            ["$.name is null, not string", "$.os is [], not an object"]
        );
        assert_eq!(differences(shape, json!([])), ["$ is [], not an object"]);
    }

    #[test]
    fn each_type_fits_only_its_own_values() {
        let values = [json!("a"), json!("2024-01-01T00:00:00.000Z"), json!(1), json!(1.5), json!(true), json!(null)];
        for (name, fits) in [
            ("string", [true, true, false, false, false, false]),
            ("date-time", [false, true, false, false, false, false]),
            ("integer", [false, false, true, false, false, false]),
            ("number", [false, false, true, true, false, false]),
            ("boolean", [false, false, false, false, true, false]),
            ("null", [false, false, false, false, false, true]),
            ("=a", [true, false, false, false, false, false]),
            ("null|string", [true, true, false, false, false, true]),
            ("=b|=a", [true, false, false, false, false, false]),
        ] {
            let found = values.each_ref().map(|value| differences(json!(name), value.clone()).is_empty());
            assert_eq!(found, fits, "{name}");
            assert!(!differences(json!(name), json!({})).is_empty() && !differences(json!(name), json!([])).is_empty());
        }
        assert_eq!(differences(json!("=b|null"), json!("a")), ["$ is \"a\", not \"b\"|null"]);
    }

    #[test]
    fn every_element_of_a_list_is_compared_and_an_empty_list_is_refused() {
        let shape = json!([{ "id": "integer" }]);
        assert_eq!(differences(shape.clone(), json!([{ "id": 1 }, { "id": null }])), ["$[1].id is null, not integer"]);
        assert_eq!(differences(shape.clone(), json!([])), ["$ is empty"]);
        assert_eq!(differences(shape, json!({ "id": 1 })), ["$ is {\"id\":1}, not a list"]);
        assert_eq!(differences(json!([]), json!([])), Vec::<String>::new());
        assert_eq!(differences(json!([]), json!([1])), Vec::<String>::new());
        assert_eq!(differences(json!([]), json!({})), ["$ is {}, not a list"]);
    }

    #[test]
    fn an_invalid_shape_is_refused() {
        for bad in
            ["1", "null", "true", "\"text\"", "\"\"", "\"string|\"", "[\"string\",\"string\"]", "{\"a\":[1]}", "{"]
        {
            assert!(Shape::parse(bad).is_err(), "{bad}");
        }
    }
}

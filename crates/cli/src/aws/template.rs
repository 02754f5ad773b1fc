//! Parses a `CloudFormation` template, and resolves the intrinsic functions in its resources.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, ScalarOwned, YamlOwned};
use serde_json::{Map, Value, json};
use thiserror::Error;

/// A template, or a value in it, that cannot be resolved.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// The text is neither JSON nor YAML.
    #[error("the template is neither JSON nor YAML: {0}")]
    Unparsable(String),
    /// A value depends on a function, parameter or resource that is unknown.
    #[error("cannot resolve {0} in the template")]
    Unresolved(String),
}

/// The values that references in a template resolve to.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// The parameters and pseudo parameters, and the physical id of each resource.
    pub(crate) references: BTreeMap<String, Value>,
    /// The attributes of resources, by logical id and attribute joined with a dot.
    pub(crate) attributes: BTreeMap<String, Value>,
}

/// A parsed template with the values of one stack.
#[derive(Debug)]
pub(crate) struct Template {
    document: Value,
    scope: Scope,
}

impl Template {
    /// Wraps a document of [`parse`].
    pub(crate) fn new(document: Value, scope: Scope) -> Self {
        Self { document, scope }
    }

    /// Returns the properties of a resource, or only one of them if it is named, with all functions resolved.
    pub(crate) fn properties(&self, logical_id: &str, only: &str) -> Result<Value, TemplateError> {
        let properties = &self.document["Resources"][logical_id]["Properties"];
        let properties = if only.is_empty() { properties } else { &json!({ only: properties[only] }) };
        Ok(self.resolve(properties)?.unwrap_or(Value::Null))
    }

    /// Resolves a value. Returns `None` for `AWS::NoValue`.
    fn resolve(&self, value: &Value) -> Result<Option<Value>, TemplateError> {
        match value {
            Value::Array(items) => {
                let items = items.iter().filter_map(|item| self.resolve(item).transpose());
                Ok(Some(Value::Array(items.collect::<Result<_, _>>()?)))
            }
            Value::Object(members) => {
                if let (1, Some((name, argument))) = (members.len(), members.iter().next())
                    && (name == "Ref" || name == "Condition" && argument.is_string() || name.starts_with("Fn::"))
                {
                    return self.call(name, argument);
                }
                let mut resolved = Map::new();
                for (name, member) in members {
                    if let Some(member) = self.resolve(member)? {
                        resolved.insert(name.clone(), member);
                    }
                }
                Ok(Some(Value::Object(resolved)))
            }
            scalar => Ok(Some(scalar.clone())),
        }
    }

    /// Resolves a value that must not be `AWS::NoValue`.
    fn value(&self, value: &Value) -> Result<Value, TemplateError> {
        self.resolve(value)?.ok_or_else(|| unresolved(value))
    }

    /// Resolves a value to text.
    fn text(&self, value: &Value) -> Result<String, TemplateError> {
        scalar_text(&self.value(value)?).ok_or_else(|| unresolved(value))
    }

    /// Resolves a value to a list.
    fn list(&self, value: &Value) -> Result<Vec<Value>, TemplateError> {
        match self.value(value)? {
            Value::Array(items) => Ok(items),
            _ => Err(unresolved(value)),
        }
    }

    fn call(&self, name: &str, argument: &Value) -> Result<Option<Value>, TemplateError> {
        let invalid = || unresolved(&json!({ name: argument }));
        let argument_at = |index: usize| argument.get(index).ok_or_else(invalid);
        Ok(Some(match name {
            "Ref" if argument == "AWS::NoValue" => return Ok(None),
            "Ref" => {
                let reference = argument.as_str().and_then(|name| self.scope.references.get(name));
                reference.cloned().ok_or_else(invalid)?
            }
            "Fn::GetAtt" => {
                let attribute = match argument {
                    Value::Array(parts) => {
                        let parts = parts.iter().map(|part| self.text(part));
                        parts.collect::<Result<Vec<_>, _>>()?.join(".")
                    }
                    text => self.text(text)?,
                };
                self.scope.attributes.get(&attribute).cloned().ok_or_else(invalid)?
            }
            "Fn::Sub" => Value::String(self.substitute(argument)?),
            "Fn::If" => {
                let condition = self.condition(argument_at(0)?)?;
                return self.resolve(argument_at(if condition { 1 } else { 2 })?);
            }
            "Fn::Join" => {
                let items = self.list(argument_at(1)?)?;
                let items: Option<Vec<_>> = items.iter().map(scalar_text).collect();
                Value::String(items.ok_or_else(invalid)?.join(&self.text(argument_at(0)?)?))
            }
            "Fn::Split" => {
                let text = self.text(argument_at(1)?)?;
                text.split(&self.text(argument_at(0)?)?).collect()
            }
            "Fn::Select" => {
                let index: usize = self.text(argument_at(0)?)?.parse().map_err(|_| invalid())?;
                self.list(argument_at(1)?)?.get(index).cloned().ok_or_else(invalid)?
            }
            "Fn::FindInMap" => {
                let keys = [self.text(argument_at(0)?)?, self.text(argument_at(1)?)?, self.text(argument_at(2)?)?];
                let found = keys.iter().try_fold(&self.document["Mappings"], |map, key| map.get(key));
                let default = argument.get(3).map(|options| &options["DefaultValue"]);
                return self.resolve(found.or(default).ok_or_else(invalid)?);
            }
            "Fn::Equals" | "Fn::Not" | "Fn::And" | "Fn::Or" | "Condition" => {
                Value::Bool(self.condition(&json!({ name: argument }))?)
            }
            _ => return Err(invalid()),
        }))
    }

    /// Evaluates a condition, or the condition with this name.
    fn condition(&self, condition: &Value) -> Result<bool, TemplateError> {
        let invalid = || unresolved(condition);
        if let Some(name) = condition.as_str() {
            return self.condition(self.document["Conditions"].get(name).ok_or_else(invalid)?);
        }
        let (name, argument) = condition.as_object().and_then(|members| members.iter().next()).ok_or_else(invalid)?;
        let mut operands = argument.as_array().into_iter().flatten().map(|operand| self.condition(operand));
        match name.as_str() {
            "Condition" => self.condition(argument),
            "Fn::Equals" => {
                let [one, other] = argument.as_array().map_or(&[][..], Vec::as_slice) else { return Err(invalid()) };
                Ok(self.text(one)? == self.text(other)?)
            }
            "Fn::Not" => Ok(!operands.next().ok_or_else(invalid)??),
            "Fn::And" => operands.try_fold(true, |all, operand| Ok(all & operand?)),
            "Fn::Or" => operands.try_fold(false, |any, operand| Ok(any | operand?)),
            _ => Err(invalid()),
        }
    }

    fn substitute(&self, argument: &Value) -> Result<String, TemplateError> {
        let (text, variables) = match argument {
            Value::Array(parts) => (parts.first(), parts.get(1)),
            text => (Some(text), None),
        };
        let mut rest = text.and_then(Value::as_str).ok_or_else(|| unresolved(argument))?;
        let mut result = String::new();
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| unresolved(argument))?;
            result += before;
            if let Some(literal) = name.strip_prefix('!') {
                result.extend(["${", literal, "}"]);
            } else if let Some(variable) = variables.and_then(|variables| variables.get(name)) {
                result += &self.text(variable)?;
            } else {
                let scope = if name.contains('.') { &self.scope.attributes } else { &self.scope.references };
                let value = scope.get(name).and_then(scalar_text);
                result += &value.ok_or_else(|| unresolved(&json!({ "Fn::Sub": format!("${{{name}}}") })))?;
            }
            rest = after;
        }
        Ok(result + rest)
    }
}

/// Parses the template of a `GetTemplate` response: a JSON object, or a string of YAML or JSON. Short forms of functions,
/// such as `!Ref`, become objects.
pub(crate) fn parse(body: Value) -> Result<Value, TemplateError> {
    let Value::String(text) = body else { return Ok(body) };
    if let Ok(document) = serde_json::from_str(&text) {
        return Ok(document);
    }
    let documents = YamlOwned::load_from_str(&text).map_err(|error| TemplateError::Unparsable(error.to_string()))?;
    let document = documents.into_iter().next().ok_or_else(|| TemplateError::Unparsable("no document".to_owned()))?;
    Ok(json_of(&document))
}

fn json_of(yaml: &YamlOwned) -> Value {
    match yaml {
        YamlOwned::Value(ScalarOwned::Boolean(value)) => json!(value),
        YamlOwned::Value(ScalarOwned::Integer(value)) => json!(value),
        YamlOwned::Value(ScalarOwned::FloatingPoint(value)) => json!(value.into_inner()),
        YamlOwned::Value(ScalarOwned::String(value)) => json!(value),
        YamlOwned::Representation(text, ..) => json!(text),
        YamlOwned::Sequence(items) => items.iter().map(json_of).collect(),
        YamlOwned::Mapping(members) => {
            let members =
                members.iter().map(|(name, member)| (scalar_text(&json_of(name)).unwrap_or_default(), json_of(member)));
            Value::Object(members.collect())
        }
        YamlOwned::Tagged(tag, node) => {
            let name = match tag.suffix.as_str() {
                name @ ("Ref" | "Condition") => name.to_owned(),
                name => format!("Fn::{name}"),
            };
            json!({ name: json_of(node) })
        }
        YamlOwned::Value(ScalarOwned::Null) | YamlOwned::Alias(_) | YamlOwned::BadValue => Value::Null,
    }
}

/// Returns the text of a scalar, as `CloudFormation` compares and joins it.
pub(crate) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn unresolved(value: &Value) -> TemplateError {
    TemplateError::Unresolved(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = r#"
Mappings:
  Queues:
    Messages: { Route: messages.statuses, Size: 1024 }
Conditions:
  IsFifo: !Equals [!Ref Fifo, "true"]
  HasKey: !Not [!Equals [!Ref Key, ""]]
  Either: !Or [!Condition IsFifo, !Condition HasKey]
  Both: !And [!Condition IsFifo, !Condition HasKey]
Resources:
  Queue:
    Type: AWS::SQS::Queue
    Properties:
      Name: !If [IsFifo, !Sub "${Name}.fifo", !Ref Name]
      Key: !If [HasKey, !Ref Key, !Ref AWS::NoValue]
      Either: !If [Either, 1, 2]
      Both: !If [Both, 1, 2]
      Size: !FindInMap [Queues, Messages, Size]
      Missing: !FindInMap [Queues, Other, Size, { DefaultValue: !Ref Name }]
      Nested: { arn: !GetAtt Dead.Arn, url: !Ref Dead, list: [a, !Ref AWS::NoValue] }
      Text: !Sub ["${A}-${Dead.Arn}-${!Literal}", { A: !Select [1, !Split [",", "x,y"]] }]
      Joined: !Join ["-", [!Ref Name, 5]]
  Unresolvable:
    Properties: { Name: !ImportValue other }
"#;

    fn template(text: &str, fifo: &str) -> Template {
        let references = [("Fifo", fifo), ("Key", ""), ("Name", "a-queue"), ("Dead", "https://dead")];
        let scope = Scope {
            references: references.map(|(name, value)| (name.to_owned(), json!(value))).into(),
            attributes: [("Dead.Arn".to_owned(), json!("arn:dead"))].into(),
        };
        Template::new(parse(json!(text)).unwrap(), scope)
    }

    #[test]
    fn functions_of_a_template_are_resolved() {
        let properties = template(YAML, "true").properties("Queue", "").unwrap();

        assert_eq!(
            properties,
            json!({
                "Name": "a-queue.fifo", "Either": 1, "Both": 2, "Size": 1024, "Missing": "a-queue",
                "Nested": { "arn": "arn:dead", "url": "https://dead", "list": ["a"] },
                "Text": "y-arn:dead-${Literal}", "Joined": "a-queue-5",
            })
        );
        let standard = template(YAML, "false").properties("Queue", "").unwrap();
        assert_eq!((&standard["Name"], &standard["Either"]), (&json!("a-queue"), &json!(2)));
    }

    #[test]
    fn json_and_yaml_templates_are_equal() {
        let json = parse(json!(YAML)).unwrap();

        assert_eq!(parse(json!(json.to_string())).unwrap(), json);
        assert_eq!(parse(json.clone()).unwrap(), json);
    }

    #[test]
    fn unknown_function_is_an_error() {
        let error = template(YAML, "true").properties("Unresolvable", "").unwrap_err();

        assert_eq!(error.to_string(), r#"cannot resolve {"Fn::ImportValue":"other"} in the template"#);
    }
}

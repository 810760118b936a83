//! Paths into the objects of a schema: `.spec.replicas`, `.metadata.labels['a.b']`.

use serde_json::Value;

/// The names on the way, and the schema of what the path leads to.
pub fn resolve<'a>(
    schema: &'a Value,
    path: &str,
    brackets: bool,
) -> Result<(Vec<String>, &'a Value), String> {
    let (mut names, mut schema, mut rest) = (Vec::new(), schema, path);
    while !rest.is_empty() {
        let (name, after) = step(rest, brackets)?;
        schema = inner(schema, &name).ok_or("does not refer to a valid field")?;
        names.push(name);
        rest = after;
    }
    Ok((names, schema))
}

/// The next name, and what follows it.
fn step(path: &str, brackets: bool) -> Result<(String, &str), String> {
    const END: &str = "unexpected end of JSON path";
    let word = |text: &str| text.find(['.', '[', ']']).unwrap_or(text.len());
    if let Some(rest) = path.strip_prefix('.') {
        let (name, after) = rest.split_at(word(rest));
        return match name {
            "" if after.is_empty() => Err(END.into()),
            _ => Ok((name.to_owned(), after)),
        };
    }
    let Some(rest) = path.strip_prefix('[') else {
        return Err(format!(
            "expected [ or . but got: {}",
            &path[..word(path).max(1)]
        ));
    };
    if !brackets {
        return Err("array notation is not allowed".into());
    }
    let Some(quoted) = rest.strip_prefix('\'') else {
        let got = &rest[..word(rest)];
        return Err(format!("expected single quoted string but got {got}"));
    };
    let (name, after) = quoted.split_once('\'').ok_or(END)?;
    match after.strip_prefix(']') {
        Some(after) => Ok((name.to_owned(), after)),
        None => Err(END.into()),
    }
}

fn inner<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    match schema["properties"].as_object() {
        Some(properties) if !properties.is_empty() => properties.get(name),
        _ => schema
            .get("additionalProperties")
            .filter(|schema| schema.is_object()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_through_properties_and_maps() {
        let schema = json!({"properties": {"spec": {"properties": {
            "size": {"type": "integer"},
            "labels": {"additionalProperties": {"type": "string"}},
        }}}});
        let found =
            |path: &str| resolve(&schema, path, true).map(|(_, schema)| schema["type"].clone());
        assert_eq!(found(".spec.size"), Ok(json!("integer")));
        assert_eq!(found(".spec.labels['a.b']"), Ok(json!("string")));
        assert_eq!(found("['spec']['size']"), Ok(json!("integer")));
        for (path, why) in [
            ("spec", "expected [ or . but got: spec"),
            (".", "unexpected end of JSON path"),
            (".spec.count", "does not refer to a valid field"),
            (".spec.size.more", "does not refer to a valid field"),
            (".spec[0]", "expected single quoted string but got 0"),
            ("]", "expected [ or . but got: ]"),
        ] {
            assert_eq!(found(path), Err(why.to_owned()), "{path}");
        }
        let brackets = resolve(&schema, "['spec']", false).unwrap_err();
        assert_eq!(brackets, "array notation is not allowed");
    }
}

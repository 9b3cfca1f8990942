//! The table of a chart's values: what its schema knows, with the defaults and the comments of values.yaml, or else those of the schema.

use std::collections::BTreeMap;

use serde_json::Value;

/// The comment in front of each key, by its path.
pub(crate) fn comments(values: &str) -> BTreeMap<String, String> {
    let (mut found, mut above) = (BTreeMap::new(), Vec::new());
    let mut open: Vec<(usize, String)> = Vec::new();
    for line in values.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(comment) = text.strip_prefix("# ") {
            // `# image: …` is an example, no comment.
            let first = comment.split(' ').next().unwrap_or_default();
            let is_example = first.ends_with(':') && first.starts_with(|c: char| c.is_ascii_lowercase());
            if !is_example {
                above.push(comment.to_owned());
            }
            continue;
        }
        if let Some((key, _)) = text.split_once(':').filter(|(key, _)| !key.contains(' ')) {
            open.retain(|(depth, _)| *depth < indent);
            open.push((indent, key.to_owned()));
            let path = open.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
            if !above.is_empty() {
                found.insert(path, above.join(" "));
            }
        }
        above.clear();
    }
    found
}

/// The table.
pub(crate) fn table(schema: &Value, values: &str) -> String {
    let (defaults, comments) = (serde_yaml::from_str(values).unwrap(), comments(values));
    let mut rows = Vec::new();
    walk("", schema, Some(&defaults), &comments, &mut rows);
    format!("| value | default | |\n|---|---|---|\n{}", rows.concat())
}

fn walk(
    path: &str,
    schema: &Value,
    default: Option<&Value>,
    comments: &BTreeMap<String, String>,
    rows: &mut Vec<String>,
) {
    let is_group = schema.get("properties").is_some() && !comments.contains_key(path);
    if !path.is_empty() && path != "global" && !is_group {
        let described = schema["description"].as_str().map(str::to_owned);
        let text = comments.get(path).cloned().or(described);
        let text = text.unwrap_or_else(|| panic!("{path} has no comment in values.yaml, and no description"));
        let default = default.or_else(|| schema.get("default")).filter(|default| !default.is_null());
        let default = default.map_or_else(String::new, |default| format!("`{default}`"));
        let text = text.replace('|', "\\|").replace('\n', " ");
        rows.push(format!("| `{path}` | {} | {text} |\n", default.replace('|', "\\|")));
    }
    // Where nothing is said of the fields of an item, the list says it.
    let is_told = |items: &&Value| {
        items["properties"].as_object().is_some_and(|all| all.values().all(|one| one.get("description").is_some()))
    };
    let items = schema.get("items").filter(is_told);
    for (fields, path) in [(Some(schema), path.to_owned()), (items, format!("{path}[]"))] {
        for (name, field) in fields.and_then(|fields| fields["properties"].as_object()).into_iter().flatten() {
            let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let default = default.and_then(|default| default.get(name));
            walk(&inner, field, default, comments, rows);
        }
    }
}

//! The images that objects need.
//!
//! Three places, by how sure it is that an image named there is pulled: the containers of a pod (certain); a field of a custom
//! resource that is called like one (`image`, `baseImage`, `{repository, tag}`), which its operator will most likely put into a
//! pod; any other text (arguments, environment, configuration) in which a complete reference appears. All of them have to be
//! in the bundle; those of the last two kinds can be declared needless by name, in `ignore_images`.
//!
//! An image without a version is refused: whatever `latest` is today would be packed, and the API server turns it into
//! `imagePullPolicy: Always`, which cannot work behind the gap. `Always` itself is refused for the same reason.

use std::collections::BTreeSet;

use base64::Engine as _;
use bundle::addon::label;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::glob;
use crate::source::registry::Reference;

/// How sure it is that an image is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// A container of a pod runs it.
    Container,
    /// A field of another object is called like one.
    Field,
    /// Some text has it.
    Text,
}

/// An image that is named somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The image.
    pub reference: Reference,
    /// As it is written there.
    pub written: String,
    /// How sure it is that it is needed.
    pub certainty: Certainty,
    /// Where: object and JSON pointer.
    pub place: String,
}

/// The images that an addon needs: those found in its objects without the ignored ones, and the extra ones. Sorted, each
/// once. All problems are reported together.
pub fn images(objects: &[Value], extra: &[String], ignore: &[String]) -> anyhow::Result<Vec<Reference>> {
    let mut survey = Survey::default();
    for object in objects {
        survey.object(object);
    }
    let mut needed = BTreeSet::new();
    let mut used = BTreeSet::new();
    for found in survey.found {
        let named =
            |pattern: &&String| **pattern == found.written || glob::matches(pattern, &found.reference.to_string());
        match ignore.iter().find(named) {
            Some(pattern) if found.certainty == Certainty::Container => survey
                .problems
                .push(format!("`ignore_images` names `{pattern}`, but a container runs it: {}", found.place)),
            Some(pattern) => {
                used.insert(pattern);
            }
            None => match floating(&found.written, &found.reference) {
                Some(problem) => survey.problems.push(format!("{problem}: {}{}", found.place, escape(found.certainty))),
                None => {
                    needed.insert(found.reference);
                }
            },
        }
    }
    for (place, written, certainty) in survey.unreadable {
        match ignore.iter().find(|pattern| **pattern == written) {
            Some(pattern) if certainty != Certainty::Container => {
                used.insert(pattern);
            }
            _ => survey.problems.push(format!(
                "`{}` is not an image reference: {place}{}",
                written.escape_debug(),
                escape(certainty)
            )),
        }
    }
    for pattern in ignore.iter().filter(|pattern| !used.contains(pattern)) {
        survey.problems.push(format!("`ignore_images` names `{pattern}`, which is nowhere"));
    }
    for written in extra {
        let reference: Reference = written.parse()?;
        match floating(written, &reference) {
            Some(problem) => survey.problems.push(format!("{problem}: in `images`")),
            None => {
                needed.insert(reference);
            }
        }
    }
    if survey.problems.is_empty() {
        return Ok(needed.into_iter().collect());
    }
    Err(Failure::new(survey.problems.join("\n"))
        .hint("a patch can change a value: `[[addon.NAME.patch]]` with `kind`, `name`, `path`, `value`")
        .into())
}

fn escape(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Container => "",
        Certainty::Field | Certainty::Text => " (if no image is meant, name it in `ignore_images`)",
    }
}

/// What is wrong with a reference that means another image tomorrow.
fn floating(written: &str, reference: &Reference) -> Option<String> {
    let latest = reference.digest().is_none() && reference.tag().is_none_or(|tag| tag == "latest");
    latest.then(|| format!("`{written}` has no version: a tag other than `latest`, or a digest, is needed"))
}

#[derive(Debug, Default)]
struct Survey {
    found: Vec<Found>,
    unreadable: Vec<(String, String, Certainty)>,
    problems: Vec<String>,
}

/// Where the survey is.
struct Place<'a> {
    object: &'a str,
    way: Vec<String>,
}

impl Place<'_> {
    fn show(&self) -> String {
        let way: String =
            self.way.iter().flat_map(|token| ["/".to_owned(), token.replace('~', "~0").replace('/', "~1")]).collect();
        format!("{} {way}", self.object)
    }
}

impl Survey {
    fn object(&mut self, object: &Value) {
        let name = label(object);
        let mut place = Place { object: &name, way: Vec::new() };
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        match kind {
            // The schema of a custom resource speaks of images without needing any, except in its defaults.
            "CustomResourceDefinition" => self.schema(object, &mut place),
            "Secret" => {
                self.walk(object, &mut place);
                self.secret(object, &mut place);
            }
            _ => self.walk(object, &mut place),
        }
    }

    fn schema(&mut self, value: &Value, place: &mut Place<'_>) {
        each(value, place, &mut |name, child, place| {
            if name == "default" { self.walk(child, place) } else { self.schema(child, place) }
        });
    }

    /// `data` of a secret is base64.
    fn secret(&mut self, object: &Value, place: &mut Place<'_>) {
        let Some(Value::Object(entries)) = object.get("data") else { return };
        for (name, value) in entries {
            let bytes = value.as_str().and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
            let Some(text) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) else { continue };
            place.way = vec!["data".to_owned(), name.clone()];
            self.text(&text, place);
        }
    }

    fn walk(&mut self, value: &Value, place: &mut Place<'_>) {
        match value {
            Value::String(text) => self.text(text, place),
            Value::Object(entries) => self.mapping(entries, place),
            Value::Array(items) => self.arguments(items, place),
            _ => {}
        }
        each(value, place, &mut |name, child, place| {
            let last_applied = name == "kubectl.kubernetes.io/last-applied-configuration";
            let seen = matches!(value, Value::Object(entries) if is_image_field(entries, name, child));
            if !last_applied && !seen {
                self.walk(child, place);
            }
        });
    }

    /// The fields of one mapping that name images.
    fn mapping(&mut self, entries: &Map<String, Value>, place: &mut Place<'_>) {
        let in_list = |list: &[&str]| matches!(place.way.as_slice(), [.., name, index] if list.contains(&name.as_str()) && index.parse::<usize>().is_ok());
        let container = in_list(&["containers", "initContainers", "ephemeralContainers"]);
        self.pull_policy(entries, place);
        if in_list(&["env"]) {
            self.environment(entries, place);
        }
        for (name, value) in entries.iter().filter(|(name, value)| is_image_field(entries, name, value)) {
            place.way.push(name.clone());
            let certainty = if container && name == "image" { Certainty::Container } else { Certainty::Field };
            match value {
                Value::String(text) => self.image(&with_sibling_tag(text, name, entries), certainty, place),
                // The source of an image volume: `volumes[].image.reference`.
                Value::Object(source) if source.contains_key("reference") => {
                    let volume = matches!(place.way.as_slice(), [.., volumes, _, _] if volumes == "volumes");
                    if let Some(text) = source.get("reference").and_then(Value::as_str) {
                        self.image(text, if volume { Certainty::Container } else { Certainty::Field }, place);
                    }
                }
                Value::Object(parts) => {
                    if let Some(text) = assembled(parts) {
                        self.image(&text, Certainty::Field, place);
                    }
                }
                _ => {}
            }
            place.way.pop();
        }
        // `{registry, repository, tag, digest}` under any other name.
        if (entries.contains_key("tag") || entries.contains_key("digest"))
            && let Some(text) = assembled(entries)
        {
            self.image(&text, Certainty::Field, place);
        }
    }

    fn pull_policy(&mut self, entries: &Map<String, Value>, place: &Place<'_>) {
        let of_image =
            entries.get("image").and_then(Value::as_object).map(|image| ("image/pullPolicy", image.get("pullPolicy")));
        for (name, policy) in [("imagePullPolicy", entries.get("imagePullPolicy"))].into_iter().chain(of_image) {
            if policy.and_then(Value::as_str) == Some("Always") {
                self.problems.push(format!("`Always` cannot be pulled behind the gap: {}/{name}", place.show()));
            }
        }
    }

    /// A variable that is called like an image may have a short name as its value: `busybox:1.36`.
    fn environment(&mut self, entry: &Map<String, Value>, place: &mut Place<'_>) {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let (Some(name), Some(value)) = (text("name"), text("value")) else { return };
        if name.to_ascii_uppercase().split('_').any(|word| word == "IMAGE") {
            place.way.push("value".to_owned());
            self.short(value, place);
            place.way.pop();
        }
    }

    /// `["--sidecar-image", "busybox:1.36"]`.
    fn arguments(&mut self, items: &[Value], place: &Place<'_>) {
        for pair in items.windows(2) {
            if let [Value::String(flag), Value::String(value)] = pair
                && flag.starts_with('-')
                && flag.ends_with("image")
            {
                self.short(value, place);
            }
        }
    }

    fn image(&mut self, written: &str, certainty: Certainty, place: &Place<'_>) {
        match written.parse::<Reference>() {
            Ok(reference) => {
                self.found.push(Found { reference, written: written.to_owned(), certainty, place: place.show() });
            }
            Err(_) => self.unreadable.push((place.show(), written.to_owned(), certainty)),
        }
    }

    /// Every complete reference in a text.
    fn text(&mut self, text: &str, place: &mut Place<'_>) {
        let breaks = |letter: char| letter.is_whitespace() || "=,;\"'`()[]{}<>|\\".contains(letter);
        for word in text.split(breaks) {
            let word = word.trim_end_matches(['.', ':']);
            if is_complete(word) {
                self.image(word, Certainty::Text, place);
            }
        }
        // `--sidecar-image=busybox:1.36`
        if let Some((flag, value)) = text.split_once('=')
            && flag.starts_with('-')
            && flag.ends_with("image")
        {
            self.short(value, place);
        }
    }

    /// A text that should be an image: taken when it has a tag or a digest, and is not complete (then it was found already).
    fn short(&mut self, value: &str, place: &Place<'_>) {
        let versioned = value.contains('@') || value.rsplit('/').next().is_some_and(|last| last.contains(':'));
        if versioned && !is_complete(value) && value.parse::<Reference>().is_ok() {
            self.image(value, Certainty::Text, place);
        }
    }
}

/// Calls `visit` for each child with its name, keeping the place.
fn each<'v>(value: &'v Value, place: &mut Place<'_>, visit: &mut dyn FnMut(&str, &'v Value, &mut Place<'_>)) {
    let mut child = |name: String, value: &'v Value| {
        place.way.push(name.clone());
        visit(&name, value, place);
        place.way.pop();
    };
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| child(at.to_string(), item)),
        Value::Object(entries) => entries.iter().for_each(|(name, value)| child(name.clone(), value)),
        _ => {}
    }
}

/// Whether this entry of a mapping names an image by its name and shape.
fn is_image_field(entries: &Map<String, Value>, name: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty() && (name == "image" || name == "baseImage"),
        Value::Object(parts) => {
            name == "image"
                && (parts.contains_key("repository")
                    || (parts.contains_key("reference") && entries.contains_key("name")))
        }
        _ => false,
    }
}

/// Prometheus' and others' way: `baseImage: quay.io/x/y` beside `tag: v1` or `version: v1`.
fn with_sibling_tag(text: &str, name: &str, entries: &Map<String, Value>) -> String {
    let bare = !text.contains('@') && !text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let siblings: &[&str] = if name == "baseImage" { &["tag", "imageTag", "version"] } else { &["tag", "imageTag"] };
    let sibling = siblings.iter().find_map(|sibling| entries.get(*sibling)?.as_str()).filter(|tag| !tag.is_empty());
    match sibling {
        Some(tag) if bare => format!("{text}:{tag}"),
        _ => text.to_owned(),
    }
}

/// `{registry, repository, tag, digest}` as one reference.
fn assembled(parts: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| parts.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut written = text("repository")?.to_owned();
    if let Some(registry) = text("registry") {
        written = format!("{registry}/{written}");
    }
    // A tag such as 1.36 is a number unless it is quoted.
    let number = parts.get("tag").filter(|tag| tag.is_number()).map(Value::to_string);
    if let Some(tag) = text("tag").map(str::to_owned).or(number) {
        written = format!("{written}:{tag}");
    }
    if let Some(digest) = text("digest") {
        written = format!("{written}@{digest}");
    }
    Some(written)
}

/// Whether a word is unmistakably a reference: a host with a dot or a port, a repository, and a tag or a digest.
fn is_complete(word: &str) -> bool {
    let Some((host, rest)) = word.split_once('/') else { return false };
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let top = name.rsplit('.').next().unwrap_or_default();
    let named = name.contains('.') && top.len() > 1 && top.bytes().all(|byte| byte.is_ascii_lowercase());
    let last = rest.rsplit('/').next().unwrap_or_default();
    let tagged = last.split_once(':').is_some_and(|(_, tag)| !tag.is_empty());
    !word.contains("://")
        && (named || port.is_some())
        && (rest.contains("@sha256:") || tagged)
        && word.parse::<Reference>().is_ok()
}

#[cfg(test)]
mod tests;

//! `WWW-Authenticate`: what a registry wants to see before it answers (RFC 9110, 11.6.1; RFC 6750, 3).

/// One challenge that we can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token that `realm` gives.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// Who asks, for the token server.
        service: Option<String>,
        /// What for, for the token server.
        scope: Option<String>,
    },
}

/// The challenges in the values of all `WWW-Authenticate` headers; what is neither Basic nor Bearer is left out.
pub(super) fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    values.into_iter().flat_map(challenges).collect()
}

fn challenges(value: &str) -> Vec<Challenge> {
    let mut all: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = value.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|letter| !is_token(letter)).unwrap_or(rest.len()));
        if word.is_empty() {
            break; // not in the grammar: what was understood so far counts
        }
        let next = after.trim_start_matches([' ', '\t']);
        rest = if let Some(next) = next.strip_prefix('=') {
            let Some((text, next)) = parameter(next.trim_start_matches([' ', '\t'])) else { break };
            if let Some((_, parameters)) = all.last_mut() {
                parameters.push((word.to_ascii_lowercase(), text));
            }
            next
        } else {
            all.push((word.to_ascii_lowercase(), Vec::new()));
            next
        };
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    all.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, &parameters)).collect()
}

/// A quoted string or a token, and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, letter) in quoted.char_indices() {
        match letter {
            _ if escaped => {
                value.push(letter);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            _ => value.push(letter),
        }
    }
    None
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let find = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: find("realm")?, service: find("service"), scope: find("scope") }),
        _ => None,
    }
}

fn is_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.into(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn challenges_of_real_registries_are_understood() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expected =
            bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push"));
        assert_eq!(parse([docker]), std::slice::from_ref(&expected));
        assert_eq!(parse([r#"Basic realm="x""#, docker]), [Challenge::Basic, expected.clone()]);
        assert_eq!(parse([&*format!(r#"BASIC realm="a, b=c" , {docker}"#)]), [Challenge::Basic, expected]);
        assert_eq!(parse(["Bearer realm=https://x/t , service = y"]), [bearer("https://x/t", Some("y"), None)]);
        assert_eq!(parse([r#"Bearer realm="a\"b""#]), [bearer("a\"b", None, None)]);
        assert_eq!(parse(["Negotiate", r#"Digest realm="x", nonce="y""#]), []);
        assert_eq!(parse(["Basic"]), [Challenge::Basic]);
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for text in ["", ",,,", "=", "\"", "Bearer", "Bearer realm", "Bearer realm=\"x", "realm=\"x\"", "Bearer \u{e4}"]
        {
            assert_eq!(parse([text]), [], "{text}");
        }
    }
}

//! Boolean dependencies (rpm's docs/manual/boolean_dependencies.md): `(a and b)`, `(a or b)`, `(a if b else c)`,
//! `(a with b)`, `(a without b)`, `(a unless b else c)`.

use crate::failure::Failure;
use crate::source::rpm_md::Dependency;
use bundle::rpm_version::{Evr, Relation};

/// Deepest nesting.
const DEPTH_LIMIT: usize = 32;

/// A dependency, plain or boolean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// A name with a range.
    Plain(Dependency),
    /// All of them.
    And(Vec<Expression>),
    /// One of them.
    Or(Vec<Expression>),
    /// The first if the second, else the third.
    If(Box<[Expression; 2]>, Option<Box<Expression>>),
    /// The first if not the second, else the third.
    Unless(Box<[Expression; 2]>, Option<Box<Expression>>),
    /// All of them by one package.
    With(Vec<Expression>),
    /// The first by a package that is not the second.
    Without(Box<[Expression; 2]>),
}

impl Expression {
    /// Reads a dependency of a package.
    pub(super) fn of(dependency: &Dependency) -> anyhow::Result<Self> {
        if !dependency.name.starts_with('(') {
            return Ok(Self::Plain(dependency.clone()));
        }
        let wrong =
            || Failure::new(format!("the boolean dependency `{}` cannot be read", dependency.name.escape_debug()));
        let mut parser = Parser { rest: &dependency.name };
        let expression = parser.group(0).ok_or_else(wrong)?;
        if parser.rest.trim().is_empty() { Ok(expression) } else { Err(wrong().into()) }
    }

    /// Whether what it asks for depends on what else is installed.
    pub(super) fn has_condition(&self) -> bool {
        match self {
            Self::If(..) => true,
            Self::And(all) | Self::Or(all) => all.iter().any(Self::has_condition),
            _ => false,
        }
    }

    /// Every plain dependency in it.
    pub(super) fn plain(&self) -> Vec<&Dependency> {
        match self {
            Self::Plain(dependency) => vec![dependency],
            Self::And(all) | Self::Or(all) | Self::With(all) => all.iter().flat_map(Self::plain).collect(),
            Self::If(pair, other) | Self::Unless(pair, other) => {
                pair.iter().chain(other.as_deref()).flat_map(Self::plain).collect()
            }
            Self::Without(pair) => pair.iter().flat_map(Self::plain).collect(),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// `( operand [operator operand]… )`
    fn group(&mut self, depth: usize) -> Option<Expression> {
        self.rest = self.rest.trim_start().strip_prefix('(')?;
        let first = self.operand(depth)?;
        let mut operator = self.word_or_end()?;
        let name = operator;
        if name == ")" {
            return Some(first);
        }
        let mut operands = vec![first, self.operand(depth)?];
        let mut otherwise = None;
        loop {
            operator = self.word_or_end()?;
            match operator {
                ")" => break,
                "else" if matches!(name, "if" | "unless") && otherwise.is_none() => {
                    otherwise = Some(Box::new(self.operand(depth)?));
                }
                again if again == name && matches!(name, "and" | "or" | "with") => {
                    operands.push(self.operand(depth)?);
                }
                _ => return None,
            }
        }
        Some(match name {
            "and" => Expression::And(operands),
            "or" => Expression::Or(operands),
            "with" => Expression::With(operands),
            "if" => Expression::If(Box::new(operands.try_into().ok()?), otherwise),
            "unless" => Expression::Unless(Box::new(operands.try_into().ok()?), otherwise),
            "without" => Expression::Without(Box::new(operands.try_into().ok()?)),
            _ => return None,
        })
    }

    fn operand(&mut self, depth: usize) -> Option<Expression> {
        if self.rest.trim_start().starts_with('(') {
            return if depth < DEPTH_LIMIT { self.group(depth + 1) } else { None };
        }
        let name = self.word()?;
        let before = self.rest;
        let range = if let Some(relation) = self.word().and_then(Relation::parse) {
            Some(Box::new((relation, Evr::parse(self.word()?))))
        } else {
            self.rest = before;
            None
        };
        Some(Expression::Plain(Dependency { name: name.into(), range }))
    }

    /// The next word, or `)` at the group's end.
    fn word_or_end(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(')') {
            Some(after) => {
                self.rest = after;
                rest.get(..1)
            }
            None => self.word(),
        }
    }

    /// Up to blanks, or to a parenthesis that was not opened in the word (`libc.so.6()(64bit)` is one word).
    fn word(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let mut open = 0_usize;
        let mut end = rest.len();
        for (at, letter) in rest.char_indices() {
            match letter {
                '(' => open += 1,
                ')' if open > 0 => open -= 1,
                ')' => {
                    end = at;
                    break;
                }
                letter if letter.is_whitespace() => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        let (word, after) = rest.split_at(end);
        self.rest = after;
        if word.is_empty() { None } else { Some(word) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Expression> {
        Expression::of(&Dependency::any(text)).ok()
    }

    fn plain(name: &str) -> Expression {
        Expression::Plain(Dependency::any(name))
    }

    #[test]
    fn boolean_dependencies_are_read() {
        assert_eq!(parse("glibc"), Some(plain("glibc")));
        assert_eq!(parse("(a and b and c)"), Some(Expression::And(vec![plain("a"), plain("b"), plain("c")])));
        assert_eq!(
            parse("(a or libc.so.6()(64bit))"),
            Some(Expression::Or(vec![plain("a"), plain("libc.so.6()(64bit)")]))
        );
        let pair = |a: &str, b: &str| Box::new([plain(a), plain(b)]);
        assert_eq!(parse("(a if b)"), Some(Expression::If(pair("a", "b"), None)));
        assert_eq!(parse("(a if b else c)"), Some(Expression::If(pair("a", "b"), Some(Box::new(plain("c"))))));
        assert_eq!(parse("(a unless b)"), Some(Expression::Unless(pair("a", "b"), None)));
        assert_eq!(parse("(a without b)"), Some(Expression::Without(pair("a", "b"))));
        let Some(Expression::With(both)) = parse("(a >= 1:2-3 with a < 4)") else { panic!() };
        let shown: Vec<_> = both.iter().flat_map(Expression::plain).map(ToString::to_string).collect();
        assert_eq!(shown, ["a >= 1:2-3", "a < 4"]);
        let Some(Expression::If(pair, None)) = parse("((a or b) if (c and d))") else { panic!() };
        assert!(matches!(*pair, [Expression::Or(_), Expression::And(_)]));
    }

    #[test]
    fn what_is_not_one_is_refused() {
        for text in ["(a and", "(a and b or c)", "(a if b if c)", "(a xor b)", "(a >= )", "()", "(a b)", "(a and b) c"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        assert_eq!(parse(&deep), None);
    }
}

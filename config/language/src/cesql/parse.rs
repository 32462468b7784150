//! From text to tree (CESQL 2): precedence climbing.

use super::functions::Function;
use super::like::Pattern;
use super::token::{Keyword, Lexer, Sort, Token, unquote};
use super::tree::{Form, Level, Node, Operator};
use super::value::{Value, shown};
use super::{DEPTH_MAX, NODES_MAX, TEXT_BYTES_MAX};
use crate::SyntaxError;

const OPERAND: &str = "an attribute, a value, a function or `(`";

pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the expression is longer than {} KiB", TEXT_BYTES_MAX >> 10);
        return Err(SyntaxError { at: 0, message });
    }
    let mut lexer = Lexer::new(text);
    let token = lexer.next();
    let mut parser = Parser { text, lexer, token, depth: 0, nodes: 0 };
    let tree = parser.expression(Level::Logic)?;
    match parser.token.sort {
        Sort::End => Ok(tree),
        Sort::Sign(")") => Err(parser.refused("nothing more, as no `(` is open")),
        _ => Err(parser.refused("an operator or the end")),
    }
}

struct Parser<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    /// The next one.
    token: Token,
    depth: usize,
    nodes: usize,
}

impl<'t> Parser<'t> {
    /// What binds as tightly as `loosest` or tighter.
    fn expression(&mut self, loosest: Level) -> Result<Node, SyntaxError> {
        let depth = self.depth;
        let mut left = self.operand()?;
        // What is in brackets is one operand, a chain or not.
        let mut open_chain = None;
        while let Some(level) = self.operator_level().filter(|level| *level >= loosest) {
            left = match level {
                Level::Like | Level::In | Level::Unary => self.like_or_in(left)?,
                Level::Logic | Level::Comparison | Level::Additive | Level::Multiplicative => {
                    self.chain(left, level, open_chain)?
                }
            };
            open_chain = Some(level);
        }
        self.depth = depth;
        Ok(left)
    }

    /// How tightly the operator binds that comes next.
    fn operator_level(&self) -> Option<Level> {
        match self.token.sort {
            Sort::Keyword(Keyword::Like) => Some(Level::Like),
            Sort::Keyword(Keyword::In) => Some(Level::In),
            Sort::Keyword(Keyword::Not) => match self.lexer.clone().next().sort {
                Sort::Keyword(Keyword::Like) => Some(Level::Like),
                Sort::Keyword(Keyword::In) => Some(Level::In),
                _ => None,
            },
            sort => operator(sort).map(Operator::level),
        }
    }

    fn chain(&mut self, left: Node, level: Level, open_chain: Option<Level>) -> Result<Node, SyntaxError> {
        let Some(operator) = operator(self.token.sort) else { return Err(self.refused("an operator")) };
        self.advance();
        let right = self.expression(level.tighter())?;
        let (start, end) = (left.start, right.end);
        let form = match left.form {
            Form::Chain { first, mut rest } if open_chain == Some(level) => {
                rest.push((operator, right));
                Form::Chain { first, rest }
            }
            form => {
                let first = Box::new(Node { form, ..left });
                Form::Chain { first, rest: vec![(operator, right)] }
            }
        };
        self.node(start, end, form)
    }

    fn like_or_in(&mut self, operand: Node) -> Result<Node, SyntaxError> {
        let start = operand.start;
        // Each of these stands around what is before it, so a row of them is as deep as it is long.
        self.enter()?;
        let is_negated = self.take(Sort::Keyword(Keyword::Not)).is_some();
        let operand = Box::new(operand);
        if self.take(Sort::Keyword(Keyword::Like)).is_some() {
            let Some(quoted) = self.take(Sort::Text) else {
                return Err(self.refused("a pattern in quotes: LIKE takes no other expression"));
            };
            let pattern = Pattern::compile(&unquote(self.slice(quoted)));
            return self.node(start, quoted.end, Form::Like { operand, pattern, is_negated });
        }
        self.advance();
        if self.take(Sort::Sign("(")).is_none() {
            return Err(self.refused("`(` and the set of IN"));
        }
        if self.token.sort == Sort::Sign(")") {
            return Err(self.refused("an element: the set of IN cannot be empty"));
        }
        let (set, end) = self.list()?;
        self.node(start, end, Form::In { operand, set, is_negated })
    }

    fn operand(&mut self) -> Result<Node, SyntaxError> {
        let token = self.token;
        match token.sort {
            Sort::Integer => {
                let number = self.integer(token)?;
                self.leaf(token, Form::Literal(Value::Integer(number)))
            }
            Sort::Text => {
                let text = unquote(self.slice(token)).into();
                self.leaf(token, Form::Literal(Value::String(text)))
            }
            Sort::Keyword(Keyword::True) => self.leaf(token, Form::Literal(Value::Boolean(true))),
            Sort::Keyword(Keyword::False) => self.leaf(token, Form::Literal(Value::Boolean(false))),
            Sort::Word => self.attribute_or_call(token),
            Sort::Keyword(Keyword::Exists) => {
                self.advance();
                let word = self.token;
                if word.sort != Sort::Word {
                    return Err(self.refused("the name of an attribute after EXISTS"));
                }
                let name = self.attribute_name(word)?;
                self.advance();
                self.node(token.start, word.end, Form::Exists(name))
            }
            Sort::Keyword(Keyword::Not) => self.unary(token, Form::Not),
            Sort::Sign("-") => self.unary(token, Form::Negate),
            Sort::Sign("(") => {
                self.enter()?;
                self.advance();
                let inner = self.expression(Level::Logic)?;
                self.depth -= 1;
                let Some(closing) = self.take(Sort::Sign(")")) else {
                    return Err(self.refused("an operator or `)`"));
                };
                Ok(Node { start: token.start, end: closing.end, form: inner.form })
            }
            _ => Err(self.refused(OPERAND)),
        }
    }

    fn unary(&mut self, token: Token, form: fn(Box<Node>) -> Form) -> Result<Node, SyntaxError> {
        self.enter()?;
        self.advance();
        let operand = self.expression(Level::Unary)?;
        self.depth -= 1;
        let end = operand.end;
        self.node(token.start, end, form(Box::new(operand)))
    }

    fn integer(&self, token: Token) -> Result<i32, SyntaxError> {
        let digits = self.slice(token);
        digits.parse().map_err(|_| {
            let message =
                format!("expected an integer from -2147483648 to 2147483647, found {}", shown(digits));
            SyntaxError { at: token.start, message }
        })
    }

    fn attribute_or_call(&mut self, word: Token) -> Result<Node, SyntaxError> {
        self.advance();
        if self.token.sort != Sort::Sign("(") {
            let name = self.attribute_name(word)?;
            return self.node(word.start, word.end, Form::Attribute(name));
        }
        let name = self.slice(word);
        if !name.starts_with(|first: char| first.is_ascii_alphabetic())
            || name.contains(|c: char| c.is_ascii_digit())
        {
            let message =
                format!("expected the name of a function, of letters and `_`, found `{}`", shown(name));
            return Err(SyntaxError { at: word.start, message });
        }
        self.advance();
        let (arguments, end) = match self.take(Sort::Sign(")")) {
            Some(closing) => (Vec::new(), closing.end),
            None => self.list()?,
        };
        let name = name.to_ascii_uppercase();
        let function = Function::of(&name, arguments.len());
        self.node(word.start, end, Form::Call { name: name.into(), function, arguments })
    }

    fn attribute_name(&self, word: Token) -> Result<Box<str>, SyntaxError> {
        let name = self.slice(word);
        if name.contains('_') {
            let message =
                format!("expected the name of an attribute, of letters and digits, found `{}`", shown(name));
            return Err(SyntaxError { at: word.start, message });
        }
        Ok(name.to_ascii_lowercase().into())
    }

    /// Expressions with commas between them up to `)`, and where that ends.
    fn list(&mut self) -> Result<(Vec<Node>, usize), SyntaxError> {
        self.enter()?;
        let mut items = vec![self.expression(Level::Logic)?];
        loop {
            if let Some(closing) = self.take(Sort::Sign(")")) {
                self.depth -= 1;
                return Ok((items, closing.end));
            }
            if self.take(Sort::Sign(",")).is_none() {
                return Err(self.refused("an operator, `,` or `)`"));
            }
            items.push(self.expression(Level::Logic)?);
        }
    }

    fn leaf(&mut self, token: Token, form: Form) -> Result<Node, SyntaxError> {
        self.advance();
        self.node(token.start, token.end, form)
    }

    fn node(&mut self, start: usize, end: usize, form: Form) -> Result<Node, SyntaxError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let message = format!("the expression has more than {NODES_MAX} operators and operands");
            return Err(SyntaxError { at: start, message });
        }
        Ok(Node { start, end, form })
    }

    /// One level deeper. Without a limit, `((((` and `NOT NOT` would take the whole stack, which ends the process.
    fn enter(&mut self) -> Result<(), SyntaxError> {
        self.depth += 1;
        if self.depth <= DEPTH_MAX {
            return Ok(());
        }
        let message = format!("the expression is nested more than {DEPTH_MAX} levels deep");
        Err(SyntaxError { at: self.token.start, message })
    }

    fn take(&mut self, sort: Sort) -> Option<Token> {
        let token = self.token;
        (token.sort == sort).then(|| {
            self.advance();
            token
        })
    }

    fn advance(&mut self) {
        self.token = self.lexer.next();
    }

    fn slice(&self, token: Token) -> &'t str {
        &self.text[token.start..token.end]
    }

    /// The error that the next token is.
    fn refused(&self, expected: &str) -> SyntaxError {
        let token = self.token;
        let found = self.slice(token);
        let message = match token.sort {
            Sort::End => format!("expected {expected}, found the end of the expression"),
            Sort::OpenText => format!("a text without its closing {}", &found[..1]),
            _ => format!("expected {expected}, found `{}`{}", shown(found), self.hint()),
        };
        SyntaxError { at: token.start, message }
    }

    /// What people write who know other languages.
    fn hint(&self) -> &'static str {
        let before = self.text[..self.token.start].chars().next_back();
        match (self.slice(self.token), before) {
            ("=", Some('=')) => "; `=` alone compares",
            ("&", _) => "; write AND",
            ("|", _) => "; write OR",
            ("!", _) => "; write NOT",
            (".", _) => "; CESQL sees attributes only, not data",
            ("\u{2018}" | "\u{2019}" | "\u{201C}" | "\u{201D}", _) => "; quotes are ' or \"",
            _ => "",
        }
    }
}

fn operator(sort: Sort) -> Option<Operator> {
    Some(match sort {
        Sort::Keyword(Keyword::And) => Operator::And,
        Sort::Keyword(Keyword::Or) => Operator::Or,
        Sort::Keyword(Keyword::Xor) => Operator::Xor,
        Sort::Sign("=") => Operator::Equal,
        Sort::Sign("!=" | "<>") => Operator::NotEqual,
        Sort::Sign("<") => Operator::Less,
        Sort::Sign("<=") => Operator::LessOrEqual,
        Sort::Sign(">") => Operator::Greater,
        Sort::Sign(">=") => Operator::GreaterOrEqual,
        Sort::Sign("*") => Operator::Multiply,
        Sort::Sign("/") => Operator::Divide,
        Sort::Sign("%") => Operator::Remainder,
        Sort::Sign("+") => Operator::Add,
        Sort::Sign("-") => Operator::Subtract,
        _ => return None,
    })
}

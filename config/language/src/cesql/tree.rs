//! The tree of an expression.

use super::functions::Function;
use super::like::Pattern;
use super::value::{Type, Value};

/// An expression, and where it stands in the text: brackets around it included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub start: usize,
    pub end: usize,
    pub form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Literal(Value<'static>),
    Attribute(Box<str>),
    Exists(Box<str>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Like {
        operand: Box<Node>,
        pattern: Pattern,
        is_negated: bool,
    },
    In {
        operand: Box<Node>,
        set: Vec<Node>,
        is_negated: bool,
    },
    /// Operators of one level between operands, from left to right. Not nested, so that a tree is no deeper than its brackets.
    Chain {
        first: Box<Node>,
        rest: Vec<(Operator, Node)>,
    },
    /// No function: none has this name and takes so many arguments.
    Call {
        name: Box<str>,
        function: Option<Function>,
        arguments: Vec<Node>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Multiply,
    Divide,
    Remainder,
    Add,
    Subtract,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

/// How tightly an operator binds (CESQL 3.6); those of one level go from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Logic,
    Comparison,
    Additive,
    Multiplicative,
    In,
    Like,
    Unary,
}

impl Operator {
    pub fn level(self) -> Level {
        match self {
            Self::Multiply | Self::Divide | Self::Remainder => Level::Multiplicative,
            Self::Add | Self::Subtract => Level::Additive,
            Self::And | Self::Or | Self::Xor => Level::Logic,
            Self::Equal
            | Self::NotEqual
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual => Level::Comparison,
        }
    }

    pub fn ty(self) -> Type {
        match self.level() {
            Level::Additive | Level::Multiplicative => Type::Integer,
            Level::Logic | Level::Comparison | Level::In | Level::Like | Level::Unary => Type::Boolean,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::And => "AND",
            Self::Or => "OR",
            Self::Xor => "XOR",
        }
    }

    /// Whether it compares integers and nothing else.
    pub fn is_ordering(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual)
    }
}

impl Level {
    /// The next tighter one: what the right operand of a left-associative operator may consist of.
    pub fn tighter(self) -> Self {
        match self {
            Self::Logic => Self::Comparison,
            Self::Comparison => Self::Additive,
            Self::Additive => Self::Multiplicative,
            Self::Multiplicative => Self::In,
            Self::In => Self::Like,
            Self::Like | Self::Unary => Self::Unary,
        }
    }
}

impl Node {
    /// The type of the value, where it does not depend on the event.
    pub fn ty(&self) -> Option<Type> {
        match &self.form {
            Form::Literal(value) => Some(value.ty()),
            Form::Attribute(_) => None,
            Form::Negate(_) => Some(Type::Integer),
            Form::Exists(_) | Form::Not(_) | Form::Like { .. } | Form::In { .. } => Some(Type::Boolean),
            Form::Chain { rest, .. } => rest.first().map(|(operator, _)| operator.ty()),
            Form::Call { function, .. } => function.map(Function::ty),
        }
    }

    /// Calls `visit` with this node and all below it, in the order of the text.
    pub fn walk<'n>(&'n self, visit: &mut impl FnMut(&'n Self)) {
        visit(self);
        match &self.form {
            Form::Literal(_) | Form::Attribute(_) | Form::Exists(_) => {}
            Form::Not(operand) | Form::Negate(operand) | Form::Like { operand, .. } => operand.walk(visit),
            Form::In { operand, set, .. } => {
                operand.walk(visit);
                set.iter().for_each(|element| element.walk(visit));
            }
            Form::Chain { first, rest } => {
                first.walk(visit);
                rest.iter().for_each(|(_, operand)| operand.walk(visit));
            }
            Form::Call { arguments, .. } => arguments.iter().for_each(|argument| argument.walk(visit)),
        }
    }

    /// Names of the attributes that the expression reads or asks for, each once.
    pub fn attributes(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        self.walk(&mut |node| {
            if let Form::Attribute(name) | Form::Exists(name) = &node.form
                && !names.contains(&&**name)
            {
                names.push(name);
            }
        });
        names
    }
}

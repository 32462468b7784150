//! What an event must have for an expression to be true, as far as the outermost operators say so.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use crate::{Subject, Term};

const TERMS_MAX: usize = 64;

/// See [`Filter::terms`](crate::Filter::terms). `false && error` is false and `true || error` true, in either order, so that
/// each conjunct of what is true is true, and one alternative.
pub fn terms(expression: &IdedExpr) -> Option<Vec<Term>> {
    let Expr::Call(call) = &expression.expr else { return None };
    let found = match (call.func_name.as_str(), call.args.as_slice()) {
        (operators::LOGICAL_AND, parts) => parts
            .iter()
            .filter_map(terms)
            .min_by_key(|terms| (terms.iter().filter(|term| term.is_prefix).count(), terms.len()))?,
        (operators::LOGICAL_OR, parts) => parts.iter().map(terms).collect::<Option<Vec<_>>>()?.concat(),
        (operators::EQUALS, [left, right]) => vec![equality(left, right).or_else(|| equality(right, left))?],
        (operators::IN, [left, right]) => {
            let name = attribute(left)?;
            let Expr::List(list) = &right.expr else { return None };
            let texts = list.elements.iter().map(|element| literal(element).map(str::to_owned));
            let texts = texts.collect::<Option<Vec<_>>>()?;
            texts.into_iter().map(|text| exact(name, text)).collect()
        }
        ("startsWith", [prefix]) => vec![starts_with(call, prefix)?],
        _ => return None,
    };
    (found.len() <= TERMS_MAX).then_some(found)
}

fn exact(attribute: &str, text: String) -> Term {
    Term { subject: Subject::Attribute(attribute.to_owned()), text, is_prefix: false }
}

fn equality(left: &IdedExpr, right: &IdedExpr) -> Option<Term> {
    Some(exact(attribute(left)?, literal(right)?.to_owned()))
}

fn starts_with(call: &CallExpr, prefix: &IdedExpr) -> Option<Term> {
    let attribute = attribute(call.target.as_deref()?)?;
    let text = literal(prefix).filter(|text| !text.is_empty())?;
    Some(Term { subject: Subject::Attribute(attribute.to_owned()), text: text.to_owned(), is_prefix: true })
}

/// The `a` of `event.a`.
fn attribute(expression: &IdedExpr) -> Option<&str> {
    let Expr::Select(select) = &expression.expr else { return None };
    let is_event = matches!(&select.operand.expr, Expr::Ident(name) if name == "event");
    (is_event && !select.test && select.field != "data").then_some(select.field.as_str())
}

fn literal(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

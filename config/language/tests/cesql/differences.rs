//! Where the SDKs of Go (sql/v2 2.16.2) and Java (cloudevents-sql 4.0.1) differ from each other or from this implementation.

/// One expression, and what it comes to: a value, or a value and the kind of an error.
pub struct Difference {
    pub expression: &'static str,
    pub ours: &'static str,
    pub go: &'static str,
    pub java: &'static str,
    /// The section of the specification that decides, or that leaves the choice.
    pub rule: &'static str,
}

const fn difference(
    expression: &'static str,
    [ours, go, java]: [&'static str; 3],
    rule: &'static str,
) -> Difference {
    Difference { expression, ours, go, java, rule }
}

const REFUSED: [&str; 3] = [r#"[false,"parse"]"#, r#"[null,"panic"]"#, r#"[null,"exception"]"#];
const REFUSED_RULE: &str = "3.3: a parse error; the SDKs fail in other ways";

pub const DIFFERENCES: &[Difference] = &[
    difference(
        "'a%b_c' LIKE 'a%'",
        ["true", "false", "true"],
        "3.4.3: `%` stands for any characters, a `%` too",
    ),
    difference("'é' LIKE '_'", ["true", "false", "true"], "3.4.3: `_` is one character; Go takes bytes"),
    difference("'é' LIKE '__'", ["false", "true", "false"], "3.4.3: `_` is one character; Go takes bytes"),
    difference("'a\nb' LIKE 'a%b'", ["true", "true", "false"], "3.4.3: a line end is a character"),
    difference(
        "LENGTH('😀')",
        ["1", "4", "2"],
        "3.1: a String is of Unicode characters; Go counts bytes, Java UTF-16",
    ),
    difference("LEFT('é', 1)", [r#""é""#, r#""\ufffd""#, r#""é""#], "3.1: the same"),
    difference("UPPER('ß')", [r#""SS""#, r#""ß""#, r#""SS""#], "3.5.1: uppercase, of Unicode"),
    difference(
        "TRIM('\u{2003}a\u{a0}')",
        [r#""a""#, r#""a""#, "\"\u{2003}a\u{a0}\""],
        "3.5.1: white space is that of Unicode",
    ),
    difference(
        "SUBSTRING('abc', 2, -1)",
        [r#"["","functionEvaluation"]"#, r#"[null,"panic"]"#, r#"["","functionEvaluation"]"#],
        "3.5.1: a negative length raises an error",
    ),
    difference(
        "SUBSTRING('abc', 2, 2147483647)",
        [r#""bc""#, r#""bc""#, r#"["","functionEvaluation"]"#],
        "3.5.1: a length that is too large takes what there is",
    ),
    difference(
        "SUBSTRING('abc', 0, -1)",
        [r#"["","functionEvaluation"]"#, r#""""#, r#""""#],
        "3.5.1: a negative length raises an error, whatever the position",
    ),
    difference(
        "'it''s'",
        [r#""it's""#, r#""it''s""#, r#""it''s""#],
        "2.2 has no doubled quotes; taken as in SQL",
    ),
    difference(
        "5-1",
        ["4", r#"[null,"panic"]"#, r#"[null,"exception"]"#],
        "2.3: `-` is an operator between operands",
    ),
    difference(
        "5 -1",
        ["4", r#"[null,"panic"]"#, r#"[null,"exception"]"#],
        "2.3: `-` is an operator between operands",
    ),
    difference(
        "-10a",
        [r#"[0,"missingAttribute"]"#, r#"[null,"panic"]"#, r#"[null,"exception"]"#],
        "2.2: `10a` is an attribute",
    ),
    difference(
        "2147483647 + 1",
        [r#"[0,"math"]"#, "-2147483648", "-2147483648"],
        "3.1: 32 bits; the rest is not said",
    ),
    difference("-2147483648 / -1", [r#"[0,"math"]"#, "-2147483648", "-2147483648"], "3.1: the same"),
    difference("-(-2147483648)", [r#"[0,"math"]"#, "-2147483648", "-2147483648"], "3.1: the same"),
    difference(
        "FALSE AND FALSE OR TRUE",
        ["true", "false", "false"],
        "3.6: equal precedence goes from left to right; the SDKs' grammar is right-associative",
    ),
    difference("TRUE OR TRUE AND FALSE", ["false", "true", "true"], "3.6: the same"),
    difference(
        "SOURCE",
        [r#""/""#, r#""/""#, r#"[false,"missingAttribute"]"#],
        "2.2: names of attributes are in lower case",
    ),
    difference(
        "INT('12345678901')",
        [r#"[0,"cast"]"#, r#"[2147483647,"cast"]"#, r#"[0,"cast"]"#],
        "3.3: zero beside an error",
    ),
    difference(
        "NOT 'abc'",
        [r#"[false,"cast"]"#, r#"[false,"cast"]"#, r#"[true,"cast"]"#],
        "3.4: zero beside an error",
    ),
    difference(
        "(1/0) = 0",
        [r#"[false,"math"]"#, r#"[false,"math"]"#, r#"[true,"math"]"#],
        "3.4: zero beside an error",
    ),
    difference(
        "LENGTH(LEFT('abc', -1))",
        [r#"[0,"functionEvaluation"]"#, r#"[0,"functionEvaluation"]"#, r#"[3,"functionEvaluation"]"#],
        "4.1: fail-fast",
    ),
    difference(
        "missing OR TRUE",
        [r#"[false,"missingAttribute"]"#, r#"[false,"missingAttribute"]"#, "true"],
        "3.2: a missing attribute is an error",
    ),
    difference(
        "1 IN ('a', 1)",
        [r#"[false,"cast"]"#, r#"[false,"cast"]"#, r#"[true,"cast"]"#],
        "4.1: fail-fast",
    ),
    difference(
        "1 NOT IN ('x')",
        [r#"[false,"cast"]"#, r#"[false,"cast"]"#, r#"[true,"cast"]"#],
        "3.4: zero beside an error",
    ),
    difference("1\u{a0}+ 1", [r#"[false,"parse"]"#, "2", "2"], "2: the grammar has no such character"),
    difference("a b", REFUSED, REFUSED_RULE),
    difference("EXISTS (id)", REFUSED, REFUSED_RULE),
    difference("'abc", REFUSED, REFUSED_RULE),
    difference("1.5", REFUSED, REFUSED_RULE),
    difference("id == 'x'", REFUSED, REFUSED_RULE),
    difference("id IN ()", [r#"[false,"parse"]"#, r#"[null,"panic"]"#, r#"[null,"parse"]"#], REFUSED_RULE),
];

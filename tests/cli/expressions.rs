//! `sluice cesql`.

use expect_test::expect;

use crate::check_alone;

#[test]
fn cesql_prints_value_type_and_error() {
    check_alone(
        &["cesql", "--", "-'5' + LENGTH(type)"],
        "",
        &expect![[r#"
        value  2
        type   integer
        error  none
        exit 0
    "#]],
    );
    check_alone(
        &["cesql", "--", "TRUE AND subject = 'é'"],
        "",
        &expect![[r#"
        value  false
        type   boolean
        error  missingAttribute at byte 9: attribute `subject` is absent; guard it with `EXISTS subject AND`
               TRUE AND subject = 'é'
                        ^
        ! sluice: the expression has a missingAttribute error
        exit 1
    "#]],
    );
    check_alone(
        &["cesql", "type = = 'x'"],
        "",
        &expect![[r#"
        value  false
        type   boolean
        error  parse at byte 7: expected an attribute, a value, a function or `(`, found `=`
               type = = 'x'
                      ^
        ! sluice: the expression has a parse error
        exit 1
    "#]],
    );
    check_alone(
        &["cesql", "--json", "CONCAT('a', '\u{202e}')"],
        "",
        &expect![[r#"
        {"error":null,"type":"string","value":"a\u202e"}
        exit 0
    "#]],
    );
    check_alone(
        &["cesql", "--json", "5 / 0"],
        "",
        &expect![[r#"
        {"error":{"kind":"math","message":"division by zero: 5 / 0","position":4},"type":"integer","value":0}
        exit 0
    "#]],
    );
    check_alone(
        &["cesql", "--json", "ABC("],
        "",
        &expect![[r#"
        {"error":{"kind":"parse","message":"expected an attribute, a value, a function or `(`, found the end of the expression","position":4},"type":"boolean","value":false}
        exit 0
    "#]],
    );
    check_alone(
        &["cesql"],
        "",
        &expect![[r#"
        ! error: the following required arguments were not provided:
        !   <EXPR>
        ! 
        ! Usage: sluice cesql <EXPR>
        ! 
        ! For more information, try '--help'.
        exit 2
    "#]],
    );
}

#[test]
fn cesql_reads_an_event() {
    let event =
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":null,"myint":10,"mybool":true}"#;
    let words = |expression| ["cesql", "--event", "-", "--json", "--", expression];
    check_alone(
        &words("myint"),
        event,
        &expect![[r#"
        {"error":null,"type":"integer","value":10}
        exit 0
    "#]],
    );
    check_alone(
        &words("mybool AND NOT EXISTS subject"),
        event,
        &expect![[r#"
        {"error":null,"type":"boolean","value":true}
        exit 0
    "#]],
    );
    check_alone(
        &words("id"),
        r#"{"specversion":"1.0"}"#,
        &expect![[r#"
        ! sluice: standard input is no CloudEvent in JSON: attribute `id` is required
        exit 1
    "#]],
    );
    check_alone(
        &["cesql", "--event", "no/such.json", "id"],
        "",
        &expect![[r#"
        ! sluice: cannot read no/such.json: No such file or directory (os error 2)
        exit 1
    "#]],
    );
}

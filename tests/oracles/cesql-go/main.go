// Answers for the CloudEvents Go SDK, one line of JSON for each line of JSON it reads.
//
// {"expression": TEXT, "event": EVENT} is answered with {"value": VALUE, "error": KIND}; the kind is one of the conformance tests' names,
// "panic", or null.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	cesqlerrors "github.com/cloudevents/sdk-go/sql/v2/errors"
	"github.com/cloudevents/sdk-go/sql/v2/parser"
	cloudevents "github.com/cloudevents/sdk-go/v2"
)

type question struct {
	Expression string            `json:"expression"`
	Event      cloudevents.Event `json:"event"`
}

type answer struct {
	Value interface{} `json:"value"`
	Error *string     `json:"error"`
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	answers := bufio.NewWriter(os.Stdout)
	defer answers.Flush()
	output := json.NewEncoder(answers)
	for input := json.NewDecoder(lines); input.More(); {
		var asked question
		if err := input.Decode(&asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := output.Encode(evaluate(asked)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func evaluate(asked question) (answered answer) {
	defer func() {
		if reason := recover(); reason != nil {
			kind := "panic"
			answered = answer{nil, &kind}
		}
	}()
	expression, err := parser.Parse(asked.Expression)
	if err != nil {
		kind := "parse"
		return answer{nil, &kind}
	}
	value, err := expression.Evaluate(asked.Event)
	if err == nil {
		return answer{value, nil}
	}
	kind := kindOf(err)
	return answer{value, &kind}
}

func kindOf(err error) string {
	switch {
	case cesqlerrors.IsParseError(err):
		return "parse"
	case cesqlerrors.IsMathError(err):
		return "math"
	case cesqlerrors.IsCastError(err):
		return "cast"
	case cesqlerrors.IsMissingAttributeError(err):
		return "missingAttribute"
	case cesqlerrors.IsMissingFunctionError(err):
		return "missingFunction"
	case cesqlerrors.IsFunctionEvaluationError(err):
		return "functionEvaluation"
	default:
		return "generic"
	}
}

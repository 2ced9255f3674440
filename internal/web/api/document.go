package api

import (
	"context"
	_ "embed"
	"net/http"
)

//go:embed openapi.json
var openapi []byte

// document is GET /v1/openapi.json. A test holds it against the handlers.
func (*API) document(context.Context, *call) (answer, error) {
	return answer{status: http.StatusOK, body: openapi}, nil
}

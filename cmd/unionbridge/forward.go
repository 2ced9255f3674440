package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/web/compat"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// forwarder makes calls of applications with the accounts' own tokens.
type forwarder struct{ clients map[string]*wechat.Client }

// Knows reports whether a path may be forwarded at all.
func (forwarder) Knows(path string) bool { return slices.Contains(config.ForwardPaths(), path) }

// Forward makes a call, and returns WeChat's answer.
func (f forwarder) Forward(ctx context.Context, call compat.Forwarding) (*compat.Forwarded, error) {
	client := f.clients[call.AppID]
	if client == nil {
		return nil, fmt.Errorf("forwarding a call: %s has no secret here", call.AppID)
	}
	answer, err := client.Forward(ctx, wechat.Forwarded{Method: call.Method, Path: call.Path,
		Query: call.Query, ContentType: call.ContentType, Body: call.Body})
	if err != nil {
		return nil, fmt.Errorf("forwarding a call: %w", err)
	}
	return &compat.Forwarded{Status: answer.Status, ContentType: answer.ContentType, Body: answer.Body}, nil
}

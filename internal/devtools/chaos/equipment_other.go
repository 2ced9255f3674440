//go:build unix && !linux

package main

import (
	"context"
	"errors"
)

var errLinux = errors.New("this works on Linux only")

func noSmallDisk() error { return errLinux }

func noFakeTime() error { return errLinux }

func smallDisk(*world) (serverConfig, error) { return serverConfig{}, errLinux }

func fakeTime(*world) (serverConfig, error) { return serverConfig{}, errLinux }

func fillDisk(context.Context, *world) error { return errLinux }

func jumpClock(context.Context, *world) error { return errLinux }

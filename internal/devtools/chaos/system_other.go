//go:build unix && !linux

package main

import "errors"

var errLinux = errors.New("this works on Linux only")

func noSmallDisk() error { return errLinux }

func noFakeTime() error { return errLinux }

// What follows is never reached: the kinds that use it are left out.

func smallDisk(*cluster) serverConfig { return serverConfig{} }

func fakeTime(*cluster) serverConfig { return serverConfig{} }

func fillDisk(*cluster) {}

func jumpClock(*cluster) {}

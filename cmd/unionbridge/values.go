package main

import "time"

// jsonTime is a moment in UTC with milliseconds, as the database has them; always 24 characters.
func jsonTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func jsonMoment(t *time.Time) *string {
	if t == nil || t.IsZero() {
		return nil
	}
	s := jsonTime(*t)
	return &s
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

package wechat

// Contended lets tests outside of the package see what errors and the log say.
func (c *Client) Contended() bool { return c.tokens.contended() }

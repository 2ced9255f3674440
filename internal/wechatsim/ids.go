package wechatsim

import "math/bits"

// idLength is the length of every openid and unionid: "o", five characters of the account, 22 of
// the person.
const idLength = 28

const (
	idAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	noIDValue  = 0xff
	idRounds   = 4
)

// idValue inverts idAlphabet; noIDValue stands for a byte that no id contains.
func idValue(char byte) uint64 {
	switch {
	case char >= 'A' && char <= 'Z':
		return uint64(char - 'A')
	case char >= 'a' && char <= 'z':
		return uint64(char-'a') + 26
	case char >= '0' && char <= '9':
		return uint64(char-'0') + 52
	case char == '-':
		return 62
	case char == '_':
		return 63
	}
	return noIDValue
}

// idCodec turns a person's number into an id and back, with no table: a small Feistel network
// permutes 128 bits that hold the number and a check word. Real ids are opaque and so are these,
// but nothing here is meant to be secret; the network is used instead of AES because cipher.Block
// takes its slices through an interface and so allocates for every id.
type idCodec struct {
	keys   [idRounds]uint64
	check  uint64
	prefix [6]byte
}

func newIDCodec(seed uint64, scope string) *idCodec {
	state := hashString(seed, scope)
	c := &idCodec{check: mix(state ^ 0x6f70656e6964)}
	for i := range c.keys {
		state = mix(state + uint64(i) + 1)
		c.keys[i] = state
	}
	c.prefix[0] = 'o'
	for i := 1; i < len(c.prefix); i++ {
		c.prefix[i] = idAlphabet[c.check>>(6*i)&63]
	}
	return c
}

// append writes the id of a person behind dst.
func (c *idCodec) append(dst []byte, person int) []byte {
	hi, lo := uint64(person), c.check
	for _, key := range c.keys {
		hi, lo = lo, hi^mix(lo^key)
	}
	dst = append(dst, c.prefix[:]...)
	for shift := 58; shift >= 4; shift -= 6 {
		dst = append(dst, idAlphabet[hi>>shift&63])
	}
	dst = append(dst, idAlphabet[hi&15<<2|lo>>62])
	for shift := 56; shift >= 2; shift -= 6 {
		dst = append(dst, idAlphabet[lo>>shift&63])
	}
	return append(dst, idAlphabet[lo&3<<4|spareBits(hi, lo)])
}

func (c *idCodec) id(person int) string {
	return string(c.append(make([]byte, 0, idLength), person))
}

// person inverts append; ok is false for an id of another account, another kind, or a made-up one.
func (c *idCodec) person(id []byte) (person int, ok bool) {
	if len(id) != idLength || [6]byte(id[:6]) != c.prefix {
		return 0, false
	}
	var hi, lo uint64
	for _, char := range id[6:16] {
		hi = hi<<6 | idValue(char)
	}
	middle := idValue(id[16])
	hi, lo = hi<<4|middle>>2, middle&3
	for _, char := range id[17:27] {
		lo = lo<<6 | idValue(char)
	}
	last := idValue(id[27])
	lo = lo<<2 | last>>4
	if !wellFormedID(id) || last&15 != spareBits(hi, lo) {
		return 0, false
	}
	for i := idRounds - 1; i >= 0; i-- {
		hi, lo = lo^mix(hi^c.keys[i]), hi
	}
	return int(hi), lo == c.check && hi < 1<<40
}

// spareBits fills the four bits by which 22 characters are longer than 128 bits: the last character
// of real ids varies over the whole alphabet, and a reader that compares without regard to case
// must be found out.
func spareBits(hi, lo uint64) uint64 { return (hi ^ bits.RotateLeft64(lo, 17)) >> 20 & 15 }

// wellFormedID reports whether an id is possible: 28 characters of the alphabet, first "o".
func wellFormedID(id []byte) bool {
	if len(id) != idLength || id[0] != 'o' {
		return false
	}
	for _, char := range id {
		if idValue(char) == noIDValue {
			return false
		}
	}
	return true
}

// mix is the finaliser of splitmix64: every derived property of a person is a mix of the seed and
// their number.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func hashString(seed uint64, text string) uint64 {
	hash := mix(seed)
	for i := range len(text) {
		hash = mix(hash ^ uint64(text[i]))
	}
	return hash
}

func hashBytes(seed uint64, text []byte) uint64 {
	hash := mix(seed)
	for _, char := range text {
		hash = (hash ^ uint64(char)) * 0x100000001b3
	}
	return mix(hash)
}

// chance decides a share of the cases: the same hash always decides alike.
func chance(hash uint64, share float64) bool {
	return share > 0 && float64(hash>>11)/(1<<53) < share
}

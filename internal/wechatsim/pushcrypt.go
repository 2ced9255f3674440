package wechatsim

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1" //nolint:gosec // the platform signs with SHA-1
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// pushBlock is the block size of the padding: 32, although AES has blocks of 16 (reference §10.1).
const pushBlock = 32

// sign is the lower-case hex SHA-1 of the parts in the order of strings.
func sign(parts ...string) string {
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}

// encrypt makes the content of <Encrypt>: AES-256-CBC over 16 random bytes, the length, the message
// and the appid.
func encrypt(encodingKey, appid, message string, salt uint64) (string, error) {
	key, err := base64.StdEncoding.DecodeString(encodingKey + "=")
	if err != nil || len(key) != 32 {
		return "", fmt.Errorf("EncodingAESKey of %d characters is not the base64 of 32 bytes",
			len(encodingKey))
	}
	random := fmt.Appendf(nil, "%016x", salt)
	return seal(key, random, appid, message)
}

func seal(key, random []byte, appid, message string) (string, error) {
	plain := binary.BigEndian.AppendUint32(slices.Clone(random), uint32(len(message)))
	plain = append(plain, message...)
	plain = append(plain, appid...)
	padding := pushBlock - len(plain)%pushBlock
	plain = append(plain, bytes.Repeat([]byte{byte(padding)}, padding)...)
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", fmt.Errorf("EncodingAESKey: %w", err)
	}
	cipher.NewCBCEncrypter(block, key[:aes.BlockSize]).CryptBlocks(plain, plain)
	return base64.StdEncoding.EncodeToString(plain), nil
}

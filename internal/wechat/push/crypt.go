package push

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
)

const (
	// sealBlock is the block size of WeChat's padding, not of AES: pads of 17 to 32 bytes occur.
	sealBlock = 32
	// sealHead is what stands before the message: 16 random bytes and its length.
	sealHead = 16 + 4
)

// decodeAESKey turns an EncodingAESKey into the key of AES-256. Its last character may hold spare
// bits, which strict base64 refuses and WeChat hands out.
func decodeAESKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(text + "=")
	if err != nil || len(key) != 32 {
		return nil, errors.New("an EncodingAESKey has 43 letters and digits, this one is something else")
	}
	return key, nil
}

// unseal decrypts the content of <Encrypt>: AES-256-CBC, whose IV is the beginning of the key, over
// 16 random bytes, the message's length in 4, the message, and the account's appid.
func unseal(key []byte, appid, text string) (message []byte, ok bool) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(data) == 0 || len(data)%sealBlock != 0 {
		return nil, false
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, false
	}
	cipher.NewCBCDecrypter(block, key[:aes.BlockSize]).CryptBlocks(data, data)
	data, ok = unpad(data)
	if !ok || len(data) < sealHead {
		return nil, false
	}
	size := uint64(binary.BigEndian.Uint32(data[sealHead-4:]))
	data = data[sealHead:]
	if size > uint64(len(data)) || string(data[size:]) != appid {
		return nil, false
	}
	return data[:size], true
}

func unpad(data []byte) ([]byte, bool) {
	n := int(data[len(data)-1])
	if n < 1 || n > sealBlock || n > len(data) {
		return nil, false
	}
	data, pad := data[:len(data)-n], data[len(data)-n:]
	return data, bytes.Count(pad, pad[:1]) == n
}

// Package peerid derives libp2p peer ids from Ed25519 keys: what CometBFT v0.40's noise:// addresses pin.
package peerid

import (
	"crypto/ed25519"
	"math/big"
)

// header is a libp2p "identity" multihash (0x00) of 36 bytes (0x24), holding the protobuf of a libp2p
// public key: field 1 key type = 1 (Ed25519), field 2 the 32 key bytes.
// Source: libp2p specification, peer-ids/peer-ids.md.
var header = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// FromPublicKey returns the peer id ("12D3KooW…") of an Ed25519 public key.
func FromPublicKey(key ed25519.PublicKey) string {
	return base58(append(append([]byte(nil), header...), key...))
}

// FromSeed returns the peer id of the Ed25519 key with this 32-byte seed.
func FromSeed(seed []byte) string {
	return FromPublicKey(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
}

const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// base58 encodes with Bitcoin's alphabet; every leading zero byte becomes a "1".
func base58(data []byte) string {
	var digits []byte
	rest, mod, radix := new(big.Int).SetBytes(data), new(big.Int), big.NewInt(58)
	for rest.Sign() > 0 {
		rest.DivMod(rest, radix, mod)
		digits = append(digits, alphabet[mod.Int64()])
	}
	for _, b := range data {
		if b != 0 {
			break
		}
		digits = append(digits, alphabet[0])
	}
	for i, j := 0, len(digits)-1; i < j; i, j = i+1, j-1 {
		digits[i], digits[j] = digits[j], digits[i]
	}
	return string(digits)
}

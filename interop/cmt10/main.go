// Command cmt10 drives a signer with the privval code of CometBFT v1.
package main

import (
	"monosign.interop/cmt10/adapter"
	"monosign.interop/suite"
)

func main() {
	suite.Main(suite.Release{
		Name:       "cmt10",
		Extensions: true,

		SkipExtensions:      true,
		SignBytes:           true,
		ReferenceMaxMessage: 10 << 10,
		Listen:              adapter.Listen(adapter.V1, adapter.ListenSocket),
		Reference:           adapter.Reference(adapter.DialSocket),
	})
}

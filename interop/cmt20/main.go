// Command cmt20 drives a signer with the privval code of CometBFT v2.
package main

import (
	"monosign.interop/cmt20/adapter"
	"monosign.interop/suite"
)

func main() {
	suite.Main(suite.Release{
		Name:                "cmt20",
		Extensions:          true,
		NonRPExtensions:     true,
		SkipExtensions:      true,
		SignBytes:           true,
		ReferenceMaxMessage: 10 << 10,
		Listen:              adapter.Listen(adapter.V2, adapter.ListenSocket),
		Reference:           adapter.Reference(adapter.DialSocket),
	})
}

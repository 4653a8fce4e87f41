// Command cmt038 drives a signer with the privval code of CometBFT v0.38.
package main

import (
	adapter "monosign.interop/adapter037"
	"monosign.interop/adapter038"
	"monosign.interop/suite"
)

func main() {
	suite.Main(suite.Release{
		Name:                "cmt038",
		Extensions:          true,
		ReferenceMaxMessage: 10 << 10,
		Listen:              adapter.Listen(adapter038.V038, adapter.ListenSocket),
		Reference:           adapter.Reference(adapter.DialSocket),
	})
}

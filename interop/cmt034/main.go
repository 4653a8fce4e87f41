// Command cmt034 drives a signer with the privval code of CometBFT v0.34, which kept Tendermint's import paths.
package main

import (
	adapter "monosign.interop/adapter034"
	"monosign.interop/suite"
)

func main() {
	suite.Main(suite.Release{
		Name:      "cmt034",
		Listen:    adapter.Listen(adapter.V034, adapter.ListenSocket),
		Reference: adapter.Reference(adapter.DialSocket),
	})
}

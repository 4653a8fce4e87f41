// Command cmt037 drives a signer with the privval code of CometBFT v0.37.
package main

import (
	adapter "monosign.interop/adapter037"
	"monosign.interop/suite"
)

func main() {
	suite.Main(suite.Release{
		Name:      "cmt037",
		Listen:    adapter.Listen(adapter.V037, adapter.ListenSocket),
		Reference: adapter.Reference(adapter.DialSocket),
	})
}

// Command tm034 drives a signer with the privval code of Tendermint v0.34.
package main

import (
	adapter "monosign.interop/adapter034"
	"monosign.interop/suite"
)

func main() {
	suite.Main(suite.Release{
		Name:      "tm034",
		Listen:    adapter.Listen(adapter.V034, adapter.ListenSocket),
		Reference: adapter.Reference(adapter.DialSocket),
	})
}

// Builds Horcrux for `conform/peers`: `go install` of a version does not get it from the module proxy.
module monosign.conform/horcrux

go 1.26

require github.com/strangelove-ventures/horcrux/v3 v3.3.2

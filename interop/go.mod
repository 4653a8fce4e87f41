module monosign.interop

go 1.26

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// rpc asks a node over its HTTP interface.
type rpc struct {
	url    string
	client *http.Client
}

func newRPC(port int) rpc {
	return rpc{url: fmt.Sprintf("http://127.0.0.1:%d", port), client: &http.Client{Timeout: 5 * time.Second}}
}

// height returns the latest block's height; 0 before the first.
func (r rpc) height() (int64, error) {
	var status struct {
		SyncInfo struct {
			Height string `json:"latest_block_height"`
		} `json:"sync_info"`
	}
	if err := r.call("/status", &status); err != nil {
		return 0, err
	}
	return strconv.ParseInt(status.SyncInfo.Height, 10, 64)
}

// signedBy fails unless the block at this height was committed with the validator's signature.
func (r rpc) signedBy(height int64, validator string) error {
	var answer struct {
		SignedHeader struct {
			Commit struct {
				Signatures []struct {
					BlockIDFlag int    `json:"block_id_flag"`
					Address     string `json:"validator_address"`
					Signature   []byte `json:"signature"`
				} `json:"signatures"`
			} `json:"commit"`
		} `json:"signed_header"`
	}
	if err := r.call(fmt.Sprintf("/commit?height=%d", height), &answer); err != nil {
		return err
	}
	signatures := answer.SignedHeader.Commit.Signatures
	const forTheBlock = 2 // BlockIDFlagCommit
	if len(signatures) != 1 || signatures[0].BlockIDFlag != forTheBlock ||
		signatures[0].Address != validator || len(signatures[0].Signature) != 64 {
		return fmt.Errorf("block %d is not signed by validator %s: %+v", height, validator, signatures)
	}
	return nil
}

func (r rpc) call(path string, into any) error {
	response, err := r.client.Get(r.url + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var envelope struct {
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.NewDecoder(response.Body).Decode(&envelope); err != nil {
		return fmt.Errorf("read the answer to `%s`: %w", path, err)
	}
	if len(envelope.Error) > 0 {
		return errors.New(string(envelope.Error))
	}
	return json.Unmarshal(envelope.Result, into)
}

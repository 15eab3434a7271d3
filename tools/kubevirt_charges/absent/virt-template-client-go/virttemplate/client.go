// Package virttemplate stands in for a client that the renderer never calls: its module is not published.
package virttemplate

import "k8s.io/client-go/rest"

type Client struct{}

func NewForConfig(*rest.Config) (*Client, error) { return &Client{}, nil }
func (c *Client) TemplateV1beta1() *Client       { return c }
func (c *Client) RESTClient() rest.Interface     { return nil }

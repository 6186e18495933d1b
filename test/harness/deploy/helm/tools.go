//go:build tools

// Package tools names the command with which the tests check the chart.
package tools

import (
	_ "helm.sh/helm/v3/cmd/helm"
)

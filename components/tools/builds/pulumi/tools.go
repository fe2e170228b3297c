//go:build tools

package build

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"

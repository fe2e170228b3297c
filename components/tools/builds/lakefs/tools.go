//go:build tools

package build

import _ "github.com/treeverse/lakefs/cmd/lakefs"

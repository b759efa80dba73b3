// Command migrate serves, makes and follows streaming requests that outlive
// their server.
package main

import (
	"os"

	"github.com/request-migration/migrate/cmd"
)

func main() {
	os.Exit(cmd.Main())
}

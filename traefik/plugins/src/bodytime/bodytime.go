// Package bodytime gives the bodies of requests more time than their heads. Traefik knows one time for both, and passes
// it to Go's server, which knows one for each.
package bodytime

import (
	"context"
	"net/http"
	"time"
)

// Config is what Traefik reads from its configuration.
type Config struct {
	// Body is the time for a request whose head has arrived, such as "12h".
	Body string `json:"body"`
}

// CreateConfig makes a Config for Traefik to fill.
func CreateConfig() *Config { return &Config{} }

// New makes a handler that sets the times of the server that calls it, once, and has nothing else to answer.
func New(_ context.Context, _ http.Handler, config *Config, _ string) (http.Handler, error) {
	body, err := time.ParseDuration(config.Body)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, request *http.Request) {
		server, ok := request.Context().Value(http.ServerContextKey).(*http.Server)
		if !ok {
			rw.WriteHeader(http.StatusInternalServerError)
			return
		}
		if server.ReadHeaderTimeout == 0 {
			// In this order there is no moment in which a head has more time.
			server.ReadHeaderTimeout = server.ReadTimeout
			server.ReadTimeout = body
		}
		rw.WriteHeader(http.StatusNoContent)
	}), nil
}

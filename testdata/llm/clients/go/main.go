// Command client is the official Go client, for tests: the same as client.py.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

type question struct {
	URL       string         `json:"url"`
	Model     string         `json:"model"`
	Message   string         `json:"message"`
	MaxTokens int64          `json:"max_tokens"`
	How       string         `json:"how"`
	More      map[string]any `json:"more"`
}

type answer struct {
	Text   string                 `json:"text"`
	Finish []string               `json:"finish"`
	IDs    int                    `json:"ids"`
	Roles  int                    `json:"roles"`
	Usage  openai.CompletionUsage `json:"usage"`
}

func say(what string, value any) {
	b, err := json.Marshal(map[string]any{what: value})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(b))
}

func ask(q question) (answer, error) {
	client := openai.NewClient(option.WithBaseURL(q.URL), option.WithAPIKey("none"))
	options := []option.RequestOption{option.WithJSONSet("cache_prompt", false)}
	for name, value := range q.More {
		options = append(options, option.WithJSONSet(name, value))
	}
	stream := client.Chat.Completions.NewStreaming(context.Background(), openai.ChatCompletionNewParams{
		Model: q.Model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(q.Message)},
		MaxTokens: openai.Int(q.MaxTokens), Temperature: openai.Float(0),
		StreamOptions: openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)},
	}, options...)
	defer stream.Close()
	var a answer
	var whole openai.ChatCompletionAccumulator
	ids := map[string]bool{}
	for stream.Next() {
		chunk := stream.Current()
		whole.AddChunk(chunk)
		ids[chunk.ID] = true
		if chunk.Usage.TotalTokens > 0 {
			a.Usage = chunk.Usage
		}
		for _, choice := range chunk.Choices {
			a.Text += choice.Delta.Content
			if choice.Delta.Content != "" {
				say("piece", choice.Delta.Content)
			}
			if choice.Delta.Role != "" {
				a.Roles++
			}
			if choice.FinishReason != "" {
				a.Finish = append(a.Finish, choice.FinishReason)
			}
		}
	}
	a.IDs = len(ids)
	if q.How == "helper" && len(whole.Choices) > 0 {
		choice := whole.Choices[0]
		a = answer{Text: choice.Message.Content, Finish: []string{choice.FinishReason}, IDs: 1, Roles: 1, Usage: whole.Usage}
	}
	return a, stream.Err()
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			panic(err)
		}
		if a, err := ask(q); err != nil {
			say("error", fmt.Sprintf("%T: %v", err, err))
		} else {
			say("answer", a)
		}
	}
}

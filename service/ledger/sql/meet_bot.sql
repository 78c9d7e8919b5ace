-- A token meets its bot: the bot stays what it is until the token has it.
SELECT stream_id FROM claim WHERE namespace = 'bot_name' AND value = $1 FOR SHARE

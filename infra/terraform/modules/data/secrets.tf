# Secrets are made by AWS and written where they are read: neither the plan nor the state has them.
# Each is in the parameter of what wants it, whole: an address with its password.

ephemeral "aws_secretsmanager_random_password" "database" {
  password_length     = 40
  exclude_punctuation = true
}

ephemeral "aws_secretsmanager_random_password" "platform" { # Valkey's user of the platform
  password_length     = 40
  exclude_punctuation = true
}

ephemeral "aws_secretsmanager_random_password" "replica" { # and that of replicas
  password_length     = 40
  exclude_punctuation = true
}

ephemeral "aws_secretsmanager_random_password" "api_key" {
  password_length     = 40
  exclude_punctuation = true
}

ephemeral "aws_secretsmanager_random_password" "secret_key" {
  password_length     = 32
  exclude_punctuation = true
}

locals {
  # A certificate that signs itself, or ElastiCache's: what goes over the network is encrypted.
  managed           = var.valkey == "elasticache"
  platform_password = local.managed ? var.elasticache_passwords.platform : ephemeral.aws_secretsmanager_random_password.platform.random_password
  replica_password  = local.managed ? var.elasticache_passwords.replica : ephemeral.aws_secretsmanager_random_password.replica.random_password

  tls          = local.managed ? "ssl_cert_reqs=required" : "ssl_cert_reqs=none"
  platform_url = "rediss://platform:${local.platform_password}@${local.valkey_host}:6379/0?${local.tls}"
  replica_url  = "rediss://replica:${local.replica_password}@${local.valkey_host}:6379/0?${local.tls}"
  database_url = "postgresql+psycopg://loraplex:${ephemeral.aws_secretsmanager_random_password.database.random_password}@${aws_db_instance.this.address}/loraplex?sslmode=require"
  secret_key   = replace(replace(base64encode(ephemeral.aws_secretsmanager_random_password.secret_key.random_password), "+", "-"), "/", "_")

  parameters = toset(["database-url", "redis-url", "secret-key", "api-key", "replicas", "valkey-users"])
  contents = {
    database-url = local.database_url
    redis-url    = local.platform_url
    secret-key   = local.secret_key
    api-key      = "pb_${ephemeral.aws_secretsmanager_random_password.api_key.random_password}"
    replicas     = "LORAPLEX_REDIS_URL=${local.replica_url}\nLORAPLEX_ADAPTER_STORE=s3://${local.bucket}/adapters\nLORAPLEX_ADAPTER_DISK=/tmp/adapters\nAWS_REGION=${data.aws_region.here.name}"
    # As in compose.yaml, which says why.
    valkey-users = <<-EOT
      user default off ~* &* +@all
      user platform on >${local.platform_password} ~lpx:* &* +@all -@admin -@dangerous +info
      user replica on >${local.replica_password} ~lpx:{*#*}:* ~lpx:targets &lpx:* +@all -@admin -@dangerous +info
    EOT
  }
}

resource "aws_ssm_parameter" "this" {
  for_each         = local.parameters
  name             = "/${var.name}/${each.key}"
  type             = "SecureString"
  key_id           = aws_kms_key.this.arn
  value_wo         = local.contents[each.key]
  value_wo_version = var.secrets_version
}
